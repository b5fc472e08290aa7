"""Meta-Sim2: learn the structure and the parameters of scenes from unlabelled images (section 3.3 of the paper)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from pytorch_lightning import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from ms2.core.bounds import Seed
from ms2.core.distributed import Processes
from ms2.core.divergence import TrainedWeights
from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.features.base import Blocks, CountingExtractor, FeatureExtractor
from ms2.learning.alternating import AlternatingOptimisation
from ms2.learning.checks import check_parts, check_trainer, overflow_warning
from ms2.learning.count_likelihood import Readings, StepsDone
from ms2.learning.data import TargetImages
from ms2.learning.learner import Learner
from ms2.learning.list_growth import ListGrowthWarning
from ms2.learning.parameter_learner import ParameterLearner
from ms2.learning.resemblance import warn_unlike
from ms2.learning.reward import TaskReward
from ms2.learning.structure_learner import StructureLearner
from ms2.learning.turns import Turns
from ms2.models.checkpoints import SETTINGS, CheckpointError, check_grammar, difference, grammar_metadata
from ms2.models.parameters import ParameterModel
from ms2.models.pretrained_weights import LEFT_OUT, fill_in, leave_out
from ms2.models.scene_model import Row, SceneModel
from ms2.models.structure import StructureModel
from ms2.world import World


class MetaSim2(Configured, AlternatingOptimisation):
    """Learns scene structure, and parameters if asked to, from target images without labels.

    Args:
        world: Grammar, priors and renderer.
        structure: The structure model q(T).
        features: The feature extractor, which is frozen.
        structure_learner: Objective and optimisation of the structure model.
        parameters: The parameter model q(V | T); null to keep the prior's parameters.
        parameter_learner: Objective and optimisation of the parameter model.
        turns: Which steps train the parameter model; by default the second half.
        reward: Downstream task reward that the parameter model maximises too, as in Meta-Sim; null for none.
        seed: Seed of everything drawn.

    Raises:
        UserError: If parts are missing, or do not fit each other.

    Example:
        >>> model = MetaSim2(world, structure, features, StructureLearner(KDE(bandwidth=0.1), Normalised()))
        >>> Trainer(max_steps=200).fit(model, datamodule=TargetImages(Synthetic(world, RandomDigits(seed=13))))
    """

    def __init__(
        self,
        world: World,
        structure: StructureModel,
        features: FeatureExtractor,
        structure_learner: StructureLearner,
        parameters: ParameterModel | None = None,
        parameter_learner: ParameterLearner | None = None,
        turns: Turns | None = None,
        reward: TaskReward | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        check_parts(parameters, parameter_learner, turns, reward)
        self.world, self.structure, self.parameter_model, self.features = world, structure, parameters, features
        self.structure_learner, self.parameter_learner = structure_learner, parameter_learner
        self.turns = turns or Turns(parameter_fraction=0.5 if parameters is not None else 0.0)
        trained = Row(self.turns.parameter_fraction < 1, parameters is not None)
        self.scene_model = SceneModel(world, structure, parameters, trained)
        for learner in self.learners:
            learner.check(self.scene_model)
        self.parameter_mean = None if parameters is None else self.turns.weight_average(parameters)
        self.reward, self.seed = reward, seed
        self.target_features: Blocks = {}

    @property
    def learners(self) -> list[Learner]:
        """Learner of the structure model, and of the parameter model if there is one."""
        return [self.structure_learner, *([] if self.parameter_learner is None else [self.parameter_learner])]

    def on_fit_start(self) -> None:
        """Check the trainer's settings, embed the target images unless that was done before, and compare some."""
        data: TargetImages = self.trainer.datamodule  # type: ignore[attr-defined]
        check_trainer(self.trainer, self.parameter_learner is not None, self.reward is not None)
        if self.reward is not None:
            self.reward.prepare(data.target, self.world)
        self.target_features = self.target_features or self.embed(data)
        data.num_images = len(next(iter(self.target_features.values())))
        if self.trainer.is_global_zero:
            warn_unlike(self.features, self.world, data.target, self.device, self.seed)

    def configure_callbacks(self) -> list[Callback]:
        """Configure a warning of lists that grow without bound."""
        return [ListGrowthWarning()]

    def embed(self, data: TargetImages) -> Blocks:
        """Embed all target images, or load their features from the cache. All processes have to call this.

        Where numbers of objects are learned by their likelihood, block ``readings`` has what is read of them.
        """
        found: Blocks = {}
        inspect = overflow_warning(self.features)
        if self.structure_learner.objective is not None or self.parameter_learner is not None:
            found |= data.embedded(self.features, self.device, on_first_batch=inspect)
            inspect = None
        if self.structure_learner.likelihood is not None and isinstance(self.features, CountingExtractor):
            found |= data.embedded(Readings(self.features), self.device, on_first_batch=inspect)
        return found

    def training_step(self, batch: Int[Tensor, " m"], batch_idx: int) -> Tensor:
        """Sample as many scenes as there are target images in the batch, compare features, and compute a loss."""
        draw = generator(self.seed, "training", self.global_step, self.global_rank, device=self.device)
        real = {name: block[batch] for name, block in self.target_features.items()}
        compared = (self.features, real, draw, Processes.current())
        if self.parameter_learner is not None and self.is_parameter_step:
            reward = self.reward if self.reward is not None and self.reward.is_due(self.parameter_steps) else None
            loss, log = self.parameter_learner.loss(self.scene_model, *compared, reward)
        else:
            current, likelihood = self.current_model(), self.structure_learner.likelihood
            if likelihood is not None:
                readings = self.target_features["readings"]
                done = StepsDone(self.global_step - self.parameter_steps, self.parameter_steps)
                likelihood.prepare(current, self.features, readings, done, self.seed)
            loss, log = self.structure_learner.loss(current, *compared)
            log["train/lr"] = torch.full((), self.learning_rates()[0], device=self.device)
        if self.is_logged_step:
            self.log_dict(log, sync_dist=True)
        return self.with_all_weights(loss)

    def trained_weights(self) -> list[TrainedWeights]:
        """Return the weights of each learner, and of the reward's network."""
        names = ("structure_learner", "parameter_learner")
        groups = zip(names, self.learners, self.weights(), strict=False)
        found = [TrainedWeights(f"model.{name}.lr", learner.lr, weights) for name, learner, weights in groups]
        if self.reward is not None:
            found.append(TrainedWeights("model.reward.lr", self.reward.lr, self.reward.network.parameters()))
        return found

    def current_model(self) -> SceneModel:
        """Return the scene model with the prior's parameters until a training step has trained the parameter model.

        Until then the parameter model is an autoencoder, which reconstructs the prior's parameters with errors: cars
        that the prior keeps apart overlap, are counted as fewer, and structure would compensate with more of them.
        """
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        prior_parameters = fitting and self.parameter_steps == 0
        return SceneModel(self.world, self.structure) if prior_parameters else self.scene_model

    def train(self, mode: bool = True) -> "MetaSim2":
        """Set training mode, but keep the extractor in evaluation mode."""
        super().train(mode)
        self.features.eval()
        return self

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: a callback measures at the end of a validation, which Lightning skips without this method."""

    test_step = validation_step

    def predict_step(self, batch: Int[Tensor, " m"], batch_idx: int) -> Float[Tensor, "m c h w"]:
        """Generate one image per index of the batch."""
        draw = generator(self.seed, "prediction", batch_idx, device=self.device)
        return self.scene_model.images(len(batch), draw)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the weights, leave out those that are pretrained, and store the grammar's rules beside them."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[LEFT_OUT] = leave_out(checkpoint["state_dict"], self)
        checkpoint["grammar"] = grammar_metadata(self.world.grammar)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the weights belong to this grammar and this model."""
        self.check_checkpoint(checkpoint, self.trainer.state.fn == TrainerFn.FITTING)

    def check_checkpoint(self, checkpoint: dict[str, Any], resumes: bool) -> None:
        """Check that a checkpoint's weights belong to this grammar and this model, and fill in those left out of it.

        Args:
            checkpoint: Its content, to whose weights this model's pretrained ones are added.
            resumes: Whether learning is to go on from it.

        Raises:
            CheckpointError: If the checkpoint's rules are not this world's, or its weights not this model's, or
                it was trained with other pretrained weights, or lacks what learning needs to go on.
        """
        check_grammar(checkpoint, self.world.grammar)
        fill_in(checkpoint["state_dict"], checkpoint.get(LEFT_OUT), self)
        problem = difference(checkpoint["state_dict"], self)
        if problem is not None:
            raise CheckpointError(f"the checkpoint is of another model: {problem}. {SETTINGS}")
        needed = ("optimizer_states", "lr_schedulers", "loops", "callbacks") if resumes else ()
        lacking = [key for key in needed if not checkpoint.get(key) and checkpoint.get(key) != []]
        if lacking:
            raise CheckpointError(
                f"the checkpoint lacks {', '.join(lacking)}, so that learning can't go on from it: give one "
                "that 'ms2 fit' has written"
            )
