"""Stage 3: learn the structure of target images, by REINFORCE on a feature-space score (section 3.3)."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ms2.core.errors import UserError, suggest
from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.evaluation.image_distances import ImageDistances
from ms2.features.base import Blocks, FeatureExtractor, TrainedExtractor
from ms2.gradients.advantages import Advantage, LeaveOneOut
from ms2.gradients.base import Drawn
from ms2.grammar.derivations import Derivations
from ms2.grammar.grammar import Grammar
from ms2.learning.data import TargetImages
from ms2.learning.parameter_learner import ParameterLearning
from ms2.learning.reward import TaskReward
from ms2.metrics.attribute_distances import attribute_w1
from ms2.metrics.attributes import AttributeStatistic
from ms2.metrics.histograms import distribution, total_variation
from ms2.metrics.statistics import ClassFrequency, ObjectCount, StructureStatistic, StructureVector
from ms2.models.checkpoints import check_grammar, grammar_metadata
from ms2.models.parameters import LearnedParameters, ParameterModel
from ms2.models.structure import StructureModel
from ms2.objectives.base import Objective
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.base import Target
from ms2.targets.synthetic import Synthetic
from ms2.world import World

MAX_BEYOND = 0.02
"""Share of target images with more objects than the features count, above which to warn."""
PARAMETERS = 1
"""Number of the group of weights that the parameter model has; the structure model's is 0."""
VALIDATED = 1000
"""Scenes by which a validation judges parameters."""
MIN_SEEN = 0.1
"""Visible share of an object from which somebody who annotates images would see it."""
RENDERED_AT_ONCE = 50
"""Scenes whose images are drawn together where only their labels are asked for."""
FLAT, SPIKY = 0.02, 200.0
"""Sharpness of a kernel, its mean exponent, below and above which it is called degenerate."""


class Samples(NamedTuple):
    """Generated scenes of one process: their derivations and the features of their images."""

    derivations: Derivations
    features: Blocks


class MetaSim2(Configured, LightningModule):
    """Learns scene structure from images without labels.

    Each step draws as many scenes as there are target images in its batch, renders and embeds them, scores each
    against both sets of features, and descends mean_j advantage_j * grad log q(T_j) (eq. 2).

    Args:
        world: What may exist and how it looks.
        structure: The structure model q(T).
        features: The feature extractor, which is not trained here.
        objective: Scores samples.
        advantage: Turns scores into advantages.
        credit_assignment: Symbols by feature block, for blocks that speak of these alone: ``{"count_car": ["Cars"]}``.
            A block's score then weighs the steps alone that expand them, and no other's noise falls on them; blocks
            that are not named weigh all steps, and steps of symbols that no block names are weighed by all blocks. The
            paper weighs all steps by all that is known of the image. This ignores that more trees may hide a car: the
            gradient is another, but just as zero where all blocks agree with the target's.
        statistics: What is compared when the target's true structure is known; number and classes of
            objects by default.
        lr: Learning rate (Adam).
        lr_decay: Whether the learning rate falls linearly to zero, which ends the jitter of the policy.
        max_gradient: Largest norm of the gradient; longer ones are cut.
        reject_weight: Added to the score of scenes that failed too often, lambda.
        reject_threshold: Failed tries that cost nothing yet, epsilon.
        correct_rejection: Whether advantages are centred, which makes the gradient that of the law of accepted
            scenes, q(T) / P(end in time); the paper ignores rejection.
        eval_scenes: Scenes that a validation draws.
        eval_images: Images that it draws instead where the target's truth was annotated in images: what is hidden in
            them does not count then, and to know what is takes rendering.
        seed: Seed of everything drawn.
        image_distances: FID and KID of the learned images at the end of a run; null for none.
        parameters: The parameter model q(V | T), where parameters are learned as well.
        parameter_learning: How, and in which of the steps.
        attribute_statistics: Attributes whose distribution is compared with that of the target's scenes, where these
            are known.
        reward: A task's reward beside the objective of parameters, as in Meta-Sim; null for none.

    Raises:
        UserError: If one of ``parameters`` and ``parameter_learning`` is given without the other.
    """

    groups: Tensor

    def __init__(
        self,
        world: World,
        structure: StructureModel,
        features: FeatureExtractor,
        objective: Objective,
        advantage: Advantage,
        statistics: Sequence[StructureStatistic] | None = None,
        credit_assignment: dict[str, list[str]] | None = None,
        lr: float = 2e-3,
        lr_decay: bool = True,
        max_gradient: float | None = None,
        reject_weight: float = 1e-2,
        reject_threshold: int = 1,
        correct_rejection: bool = True,
        eval_scenes: int = 4000,
        eval_images: int = 500,
        seed: int = 0,
        image_distances: ImageDistances | None = None,
        parameters: ParameterModel | None = None,
        parameter_learning: ParameterLearning | None = None,
        attribute_statistics: Sequence[AttributeStatistic] | None = None,
        reward: TaskReward | None = None,
    ) -> None:
        super().__init__()
        self.world, self.structure, self.features = world, structure, features
        if (parameters is None) != (parameter_learning is None):
            given, missing = ("parameters", "parameter_learning")[:: 1 if parameters is not None else -1]
            raise UserError(
                f"model.{given} is given without model.{missing}: parameters are learned with both, as in "
                "the configuration multimnist_parameters, or not at all with neither"
            )
        self.parameter_model, self.parameter_learning = parameters, parameter_learning
        self.parameter_mean: AveragedModel | None = None
        if parameters is not None and parameter_learning is not None:
            parameter_learning.gradient.check(world.renderer, parameters)
            self.parameter_mean = parameter_learning.mean_of(parameters)
        self.attribute_statistics, self.reward = list(attribute_statistics or ()), reward
        self.labelled: Rendering | None = None
        self.learned_world = world
        """The world with learned parameters."""
        if parameters is not None:
            learned = LearnedParameters(world.parameter_prior, parameters)
            self.learned_world = World(world.grammar, world.structure_prior, learned, world.renderer)
        self.objective, self.advantage = objective, advantage
        self.credit_assignment = credit_assignment or {}
        groups, self.credited = _groups(world.grammar, self.credit_assignment)
        self.register_buffer("groups", groups, persistent=False)
        self.more_advantages = nn.ModuleList(copy.deepcopy(advantage) for _ in self.credited[1:])
        self.statistics = list(statistics or (ObjectCount(), ClassFrequency()))
        self.lr, self.lr_decay, self.max_gradient = lr, lr_decay, max_gradient
        self.reject_weight, self.reject_threshold = reject_weight, reject_threshold
        self.correct_rejection = correct_rejection
        self.eval_scenes, self.eval_images, self.seed = eval_scenes, eval_images, seed
        self.image_distances = image_distances
        self.target_features: Blocks = {}
        self.last_score: Tensor | None = None

    # -- the step --------------------------------------------------------------------------------------

    def training_step(self, batch: Int[Tensor, " m"], batch_idx: int) -> Tensor:
        """One step against the target images with these indices."""
        draw = generator(self.seed, "training", self.global_step, self.global_rank, device=self.device)
        n = len(batch) // self.trainer.world_size
        real = {name: block[batch] for name, block in self.target_features.items()}
        if self._turn() == PARAMETERS:
            return self._alone(self.parameter_loss(n, real, draw))
        return self._alone(self.loss(self.draw(n, draw), real))

    def parameter_loss(self, n: int, real: Blocks, generator: torch.Generator) -> Float[Tensor, ""]:
        """The loss of the parameter model on n scenes of the structure model."""
        assert self.parameter_model is not None and self.parameter_learning is not None
        prior = self.world.scenes(self.structure.sample(n, generator).rules, generator)
        own = self.global_rank * n + torch.arange(n, device=self.device)
        loss, score, drawn = self.parameter_learning.loss(
            self.parameter_model, self.world, self.features, prior, real, generator, self._gather, own
        )
        if self._trainer is None:
            return loss
        self.log("parameters/score", score.mean(), prog_bar=True, sync_dist=True)
        number = self.parameter_learning.before(self.global_step, self.trainer.max_steps)
        if self.reward is not None and number % self.reward.every == 0:
            loss = loss + self._rewarded(self.reward, drawn)
        return loss

    def _rewarded(self, reward: TaskReward, drawn: Drawn) -> Float[Tensor, ""]:
        """What the reward of a task adds to the loss of these scenes."""
        assert self.parameter_model is not None
        values = drawn.values.detach()
        scenes = self.parameter_model.applied(drawn.prior, values)
        if self.labelled is None:
            self.labelled = reward.validation(self.trainer.datamodule.target)  # type: ignore[attr-defined]
        accuracy = reward.accuracy(self.world, scenes, self.labelled)
        self.log("parameters/reward", accuracy, prog_bar=True, sync_dist=True)
        return reward.loss(accuracy, self.parameter_model.log_prob(drawn.proposal, values))

    def _turn(self) -> int:
        """Which group of weights this step learns."""
        learning = self.parameter_learning
        return int(learning is not None and learning.its_turn(self.global_step, self.trainer.max_steps))

    def _alone(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss, with a part in it for all weights: processes wait for the gradient of each."""
        if self.trainer.world_size == 1:
            return loss
        return loss + 0 * torch.stack([p.sum() for group in self._groups_of_weights() for p in group]).sum()

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Samples:
        """Sample n scenes, render them and extract their features."""
        derivations = self.structure.sample(n, generator)
        return Samples(derivations, self.features(self._current_world().images(derivations.rules, generator)))

    def _current_world(self) -> World:
        """The world with learned parameters, from the first step on that has learned any.

        Before, the parameter model is the autoencoder, which gives the prior's parameters back with errors: cars that
        the prior keeps apart overlap, are counted as fewer, and structure would make up for it with more.
        """
        if self.parameter_learning is None or self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return self.learned_world
        begun = self.parameter_learning.before(self.global_step, self.trainer.max_steps) > 0
        return self.learned_world if begun else self.world

    def loss(self, samples: Samples, real: Blocks) -> Float[Tensor, ""]:
        """The surrogate whose gradient is REINFORCE's.

        Scores and advantages are those of the samples of all processes together, so that the mean of the
        processes' gradients is the gradient of one process with all samples.

        Scenes that did not end in time were drawn again, so those here follow q(T) / P(end in time), and the gradient
        of their mean score s is E[s (grad log q - grad log P)] = E[(s - E s) grad log q], because grad log P is the
        mean of grad log q over them. Centred advantages estimate that; with a moving average it becomes the same as
        leaving one out.
        """
        derivations, features = samples
        population = {name: self._gather(block) for name, block in features.items()}
        own = self.global_rank * len(derivations) + torch.arange(len(derivations), device=self.device)
        scores, sharpness = self.objective.by_block(features, population, own, real)
        scores["rejection"] = self.reject_weight * (derivations.rejections > self.reject_threshold).float()
        gathered = self._gather(torch.stack(list(scores.values()), 1))  # at once: processes wait for each other
        everyone, total = dict(zip(scores, gathered.unbind(1), strict=True)), gathered.sum(1)
        if self.last_score is None:
            self._warn_if_degenerate(total, sharpness)
        self.last_score = total
        groups = self.groups if self.credit_assignment else None
        log_prob = self.structure.log_prob_and_entropy(derivations.rules, groups)
        self._log_step(total[own], sharpness, log_prob.entropy, derivations.rejections)
        return (self._advantages(everyone)[own] * log_prob.group_log_prob).sum(1).mean()

    def _advantages(self, scores: dict[str, Float[Tensor, " m"]]) -> Float[Tensor, "m g"]:
        """Advantages of all samples, for the steps of each group of symbols."""
        for block in self.credit_assignment:
            if block not in scores:
                raise UserError(
                    f"credit_assignment names the block {block!r}, which is not scored. {suggest(block, scores)}"
                )
        advantages = []
        for blocks, advantage_of in zip(self.credited, (self.advantage, *self.more_advantages), strict=True):
            heard = [
                s
                for name, s in scores.items()
                if blocks is None or name in blocks or name not in self.credit_assignment
            ]
            advantage = advantage_of(torch.stack(heard).sum(0))
            # A baseline b other than the mean leaves (E score - b) grad log P(end in time): all accepted scenes alike
            # are made likelier, or less likely.
            if self.correct_rejection and not self.advantage.centred:
                advantage = LeaveOneOut()(advantage)
            advantages.append(advantage)
        return torch.stack(advantages, 1)

    def _gather(self, values: Float[Tensor, "b *d"]) -> Float[Tensor, "m *d"]:
        """The values of all processes, in order of rank."""
        if self._trainer is None or self.trainer.world_size == 1:
            return values
        gathered: Any = self.all_gather(values)
        return gathered.flatten(0, 1)

    def _warn_if_degenerate(self, score: Float[Tensor, " m"], sharpness: dict[str, Tensor]) -> None:
        """Say so if the kernels tell samples apart too little or too well for the score to mean anything."""
        for name, value in sharpness.items():
            if not FLAT <= float(value) <= SPIKY:
                what, do = ("wide", "lower") if value < FLAT else ("narrow", "raise")
                sees = "only the features' means are matched" if value < FLAT else "each sample sees itself alone"
                warnings.warn(
                    f"the kernel of block {name!r} is too {what} (sharpness {float(value):.2g}, good are 0.5 to 10): "
                    f"{sees}. Perhaps {do} model.objective.bandwidth.",
                    stacklevel=2,
                )
        if float(score.std(correction=0)) < self.reject_weight:
            warnings.warn(
                f"the score's deviation is {float(score.std(correction=0)):.2g}, less than reject_weight = "
                f"{self.reject_weight}: rejections alone would decide what is learned",
                stacklevel=2,
            )

    def _log_step(self, score: Tensor, sharpness: dict[str, Tensor], entropy: Tensor, rejections: Tensor) -> None:
        if self._trainer is None:
            return
        self.log("train/score", score.mean(), prog_bar=True, sync_dist=True)
        self.log_dict({f"kernel/{name}_sharpness": value for name, value in sharpness.items()}, sync_dist=True)
        self.log_dict(
            {
                "train/score_deviation": score.std(correction=0),
                "train/entropy": entropy.mean(),
                "train/rejection_rate": rejections.float().mean(),
                "train/lr": self._rates()[0],
            },
            sync_dist=True,
        )

    # -- optimisation ----------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the structure model, and on the parameter model where there is one."""
        weights, rates = self._groups_of_weights(), self._rates()
        return torch.optim.Adam([{"params": w, "lr": lr} for w, lr in zip(weights, rates, strict=True)])

    def _groups_of_weights(self) -> list[list[nn.Parameter]]:
        """What is learned in turns."""
        groups = [list(self.structure.parameters())]
        if self.parameter_model is not None and self.parameter_learning is not None:
            groups.append(self.parameter_learning.trained(self.parameter_model))
        return groups

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rates from the arguments, so that what was typed wins over a checkpoint's."""
        for group, rate in zip(self.optimizers().param_groups, self._rates(), strict=True):  # type: ignore[union-attr]
            group["lr"] = rate

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Leave alone whose turn it is not."""
        for number, weights in enumerate(self._groups_of_weights()):
            if number != self._turn():
                for weight in weights:
                    weight.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step; weights of the parameter model are averaged, and after the last of its steps are their mean."""
        step, its, learning = self.global_step, self._turn(), self.parameter_learning
        super().optimizer_step(*args, **kwargs)
        if its and self.parameter_mean is not None:
            assert self.parameter_model is not None and learning is not None
            self.parameter_mean.update_parameters(self.parameter_model)
            steps = self.trainer.max_steps
            if learning.before(step + 1, steps) == learning.before(steps, steps):
                self.parameter_model.load_state_dict(self.parameter_mean.module.state_dict())

    def _rates(self) -> list[float]:
        """Learning rate of each group, which falls with the steps that are its own."""
        learning, steps = self.parameter_learning, 0 if self._trainer is None else self.trainer.max_steps
        step = self.global_step if self._trainer is not None else 0
        theirs, all_theirs = (0, 0) if learning is None else (learning.before(k, steps) for k in (step, steps))
        own = (step - theirs) / max(1, steps - all_theirs) if self.lr_decay and steps > 0 else 0.0
        rates = [self.lr * (1 - own)]
        if learning is not None:
            rates.append(learning.lr * (1 - (theirs / max(1, all_theirs) if learning.lr_decay else 0.0)))
        return rates

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Cut long gradients."""
        longest = [self.max_gradient]
        if self.parameter_learning is not None:
            longest.append(self.parameter_learning.max_gradient)
        for weights, most in zip(self._groups_of_weights(), longest, strict=True):
            if most is not None:
                torch.nn.utils.clip_grad_norm_(weights, most)

    def train(self, mode: bool = True) -> "MetaSim2":
        """Train the structure model; the extractor stays as it is."""
        super().train(mode)
        self.features.eval()
        return self

    def setup(self, stage: str) -> None:
        """Freeze what is not learned, before processes agree on what is."""
        self.features.eval().requires_grad_(False)
        if self.parameter_model is not None and self.parameter_learning is not None:
            self.parameter_model.requires_grad_(False)
            for weight in self.parameter_learning.trained(self.parameter_model):
                weight.requires_grad_(True)

    # -- the target ------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Embed the target images, unless that was done before, and see that realism can be measured at the end."""
        data: TargetImages = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.parameter_learning is not None and self.trainer.max_steps < 1:
            raise UserError("give trainer.max_steps: which of the steps learn parameters depends on how many there are")
        if self.trainer.accumulate_grad_batches != 1:
            raise UserError(
                "trainer.accumulate_grad_batches must be 1: scores compare the scenes of a batch with each other, so "
                "that two halves are not a whole. Raise data.batch_size instead"
            )
        if self.reward is not None:
            self.reward.check(data.target)
            if self.trainer.world_size > 1:
                raise UserError(
                    "model.reward trains its network on the scenes of one process: leave it out, or train with "
                    "trainer.devices 1"
                )
        if not self.target_features:
            self.embed_target(data)
        data.num_images = len(next(iter(self.target_features.values())))
        if self.image_distances is not None:
            self.image_distances.check(self.world.renderer, data.num_images)

    def embed_target(self, data: TargetImages) -> Blocks:
        """Embed all target images on all processes, or load their features from the cache."""
        self.target_features = data.embedded(self.features, self.device, on_first_batch=self._look)
        return self.target_features

    def _look(self, images: Float[Tensor, "b c h w"]) -> None:
        if isinstance(self.features, TrainedExtractor):
            self._warn_if_beyond(self.features, images)

    def _warn_if_beyond(self, features: TrainedExtractor, images: Float[Tensor, "b c h w"]) -> None:
        """Say so if the target holds more than the extractor can count."""
        for name, share in features.beyond(images).items():
            if share > MAX_BEYOND:
                warnings.warn(
                    f"{share:.0%} of the target images hold more than block {name!r} of the features can tell apart, "
                    "so the largest numbers won't be learned: raise model.features.max_count (and let "
                    "extractor.structure_prior draw as many)",
                    stacklevel=2,
                )

    # -- evaluation ------------------------------------------------------------------------------------

    @torch.no_grad()
    def scenes(self, rules: Int[Tensor, "n t"], annotated: bool = False) -> SceneBatch:
        """Scenes of derivations, without parameters.

        Args:
            rules: The derivations.
            annotated: Leave out what nobody would see in an image of the scene, see `MIN_SEEN`. Then there are only
                the first ``eval_images`` of them.
        """
        if not annotated:
            return scenes_from_derivations(self.world.grammar, rules)
        draw = generator(self.seed, "annotated", device=rules.device)
        parts = []
        for some in rules[: self.eval_images].split(RENDERED_AT_ONCE):
            scenes = self._current_world().scenes(some, draw)
            seen = self.world.renderer.render_labelled(scenes).visibility >= MIN_SEEN
            parts.append(torch.where(seen & scenes.mask, scenes.classes, -1))
        most = max(part.shape[1] for part in parts)
        classes = torch.cat([F.pad(part, (0, most - part.shape[1]), value=-1) for part in parts])
        return SceneBatch(classes, torch.full_like(classes, -1))

    def tables(self, scenes: SceneBatch) -> dict[str, Float[Tensor, "n k"]]:
        """The statistics of scenes by name, see `ms2.metrics.histograms.compare_histograms`."""
        return {s.name: s.measure(scenes, self.world.grammar.classes).float() for s in self.statistics}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Distance of the model's structure to the target's true one, where that is known."""
        draw = generator(self.seed, "validation", device=self.device)
        target: Target = self.trainer.datamodule.target  # type: ignore[attr-defined]
        if target.truth is None:
            return
        n = self.eval_images if target.annotated else self.eval_scenes
        learned = self.tables(self.scenes(self.structure.sample(n, draw).rules, target.annotated))
        true = self.tables(target.truth)
        self._validate_parameters(target, draw)
        for name in (s.name for s in self.statistics if not isinstance(s, StructureVector)):
            table = true[name]
            width = max(table.shape[1], learned[name].shape[1])
            p, q = (distribution(F.pad(t, (0, width - t.shape[1]))) for t in (learned[name].cpu(), table.cpu()))
            self.log(f"val/{name}_tv", total_variation(p, q).to(self.device), prog_bar=True, sync_dist=True)

    def _validate_parameters(self, target: Target, draw: torch.Generator) -> None:
        """Distance of the learned parameters to the target's true ones, where these are known."""
        if not self.attribute_statistics or not isinstance(target, Synthetic):
            return
        scenes = self._current_world().scenes(self.structure.sample(VALIDATED, draw).rules, draw)
        for measure in self.attribute_statistics:
            ours, theirs = (measure.measure(some, self.world.classes) for some in (scenes, target.scenes))
            found = attribute_w1(ours.values.cpu(), theirs.values.cpu(), measure.period)
            self.log(f"val/{measure.name}_w1", found, prog_bar=True, sync_dist=True)

    test_step = validation_step

    def predict_step(self, batch: Int[Tensor, " m"], batch_idx: int) -> Float[Tensor, "m c h w"]:
        """Images of as many scenes of the model as the batch has places."""
        draw = generator(self.seed, "prediction", batch_idx, device=self.device)
        return self.learned_world.images(self.structure.sample(len(batch), draw).rules, draw)

    # -- checkpoints -----------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which grammar the weights speak."""
        checkpoint["grammar"] = grammar_metadata(self.world.grammar)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another grammar.

        Raises:
            CheckpointError: If the checkpoint's rules are not this world's.
        """
        check_grammar(checkpoint, self.world.grammar)


def _groups(
    grammar: Grammar, credit: Mapping[str, Sequence[str]]
) -> tuple[Int[Tensor, " n1"], list[frozenset[str] | None]]:
    """The group of each symbol, and by group the blocks that speak of its symbols; None for all blocks."""
    heard: list[frozenset[str] | None] = []
    for block, symbols in credit.items():
        for symbol in symbols:
            if symbol not in grammar.nonterminals:
                raise UserError(
                    f"credit_assignment gives {symbol!r} the score of {block!r}, but the grammar expands no such "
                    f"symbol. {suggest(symbol, grammar.nonterminals)}"
                )
    groups = []
    for symbol in grammar.nonterminals:
        blocks = frozenset(block for block, symbols in credit.items() if symbol in symbols) or None
        if blocks not in heard:
            heard.append(blocks)
        groups.append(heard.index(blocks))
    return torch.tensor([*groups, 0]), heard
