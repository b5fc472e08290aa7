"""Parameter learning: match features of generated and target images by gradient descent (Meta-Sim)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ms2.core.bounds import PositiveFloat
from ms2.core.distributed import Processes
from ms2.core.errors import UserError, suggest
from ms2.core.seeding import generator as seeded
from ms2.features.base import Blocks, FeatureExtractor, SceneFeatureExtractor, blocks_of
from ms2.gradients.base import Gradient, SampledScenes
from ms2.learning.learner import Learner, Log, Real, local_number
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import LEARNED_STRUCTURE, SceneModel
from ms2.objectives.base import Objective
from ms2.scene.batch import SceneBatch

Reward = Callable[[SceneModel, SampledScenes], tuple[Float[Tensor, ""], Log]]
"""Computes a loss of sampled scenes that is added to the objective's, and what to log."""


CHECK_EVERY = 64
"""Steps from one check of the prior's attributes to the next, as it waits for the device."""


class ParameterLearner(Learner):
    """Trains the parameter model q(V | T) by matching features of generated and target images.

    Args:
        objective: Scores images.
        gradient: Estimates the gradient of the mean score with respect to the model's weights.
        lr: Learning rate (Adam).
        lr_decay: Whether the learning rate falls linearly to zero.
        max_grad_norm: Norm to which gradients are clipped; null for no clipping.
        freeze_encoder: Whether to train only the decoder after autoencoding, as in Meta-Sim.

    Raises:
        UserError: If the objective has no gradient where the gradient estimator needs one.

    Example:
        >>> learner = ParameterLearner(KDE(bandwidth=0.01), Pathwise(), lr=2e-3)
        >>> loss, log = learner.loss(SceneModel(world, structure, parameters), features, real, generator(0, "example"))
        >>> loss.backward()
    """

    def __init__(
        self,
        objective: Objective,
        gradient: Gradient,
        lr: PositiveFloat = 1e-3,
        lr_decay: bool = True,
        max_grad_norm: PositiveFloat | None = 1.0,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__(lr, lr_decay, max_grad_norm)
        if (gradient.through_images or gradient.straight_through) and not objective.pathwise:
            raise UserError(
                f"{type(gradient).__name__} needs an objective whose scores have a gradient through features, and "
                f"{type(objective).__name__} is none: take KDE or MMDWitness, or another gradient"
            )
        self.objective, self.gradient, self.freeze_encoder = objective, gradient, freeze_encoder
        self._num_losses = 0

    def check(self, model: SceneModel) -> None:
        """Check that the renderer has the derivatives that the gradient estimator needs."""
        self.gradient.check(_parameters(model).mutable.rendered, model.world.renderer.differentiable)

    def check_features(self, model: SceneModel, features: FeatureExtractor, scenes: SceneBatch) -> None:
        """Check that the features have the blocks of the objective, and the derivatives of the gradient estimator."""
        found = self._embed(features, model, scenes, seeded(0, "check", device=scenes.classes.device))
        self.objective(found, found, torch.arange(len(scenes)), found)

    def weights(self, model: SceneModel) -> list[nn.Parameter]:
        """Return the weights of the parameter model, or of its decoder alone."""
        parameters = _parameters(model)
        return list((parameters.decoder if self.freeze_encoder else parameters).parameters())

    def loss(
        self,
        model: SceneModel,
        features: FeatureExtractor,
        real: Real,
        generator: Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
        reward: Reward | None = None,
    ) -> tuple[Float[Tensor, ""], Log]:
        """Compute the surrogate loss of new samples, see `Learner.loss`.

        Args:
            model: Samples the scenes; the structure model draws their structure.
            features: Embeds their images.
            real: Features of target images: as many images as all processes together sample scenes.
            generator: Draws the scenes of this process.
            processes: The processes that share the step.
            reward: Computes a loss of the sampled scenes that is added.
        """
        rules = model.derivations(local_number(real, processes), generator).rules
        prior = model.scenes(rules, generator, LEARNED_STRUCTURE)
        loss, score, samples = self.surrogate(model, features, prior, real, generator, processes)
        log = {"parameters/score": score.mean()}
        if reward is None:
            return loss, log
        more, found = reward(model, samples)
        return loss + more, log | found

    def surrogate(
        self,
        model: SceneModel,
        features: FeatureExtractor,
        prior: SceneBatch,
        real: Real,
        generator: Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"], SampledScenes]:
        """Sample new attributes for scenes with attributes of the prior, and compute their surrogate loss.

        Returns:
            The loss, the scores of the images, and the sampled scenes.
        """
        parameters = _parameters(model)
        distribution = parameters.distribution(prior, generator, check=self._num_losses % CHECK_EVERY == 0)
        self._num_losses += 1
        samples = SampledScenes(prior, distribution, parameters.rsample(distribution, generator))
        own = processes.local_indices(len(prior), distribution.mean.device)
        population: Blocks = {}

        def cost(scenes: SceneBatch) -> Float[Tensor, " b"]:
            found = self._embed(features, model, scenes, generator)
            if not population:
                population.update({name: processes.gather_equal(block.detach()) for name, block in found.items()})
            return self.objective(found, population, own, real)[0]

        return (*self.gradient.loss(parameters, samples, cost, generator, processes), samples)

    def _embed(self, features: FeatureExtractor, model: SceneModel, scenes: SceneBatch, generator: Generator) -> Blocks:
        """Compute features of the images of scenes, with the derivatives that the gradient estimator needs."""
        renderer = model.world.renderer
        if not self.gradient.straight_through:
            return features.embed_scenes(renderer, scenes, generator)
        if not isinstance(features, SceneFeatureExtractor):
            raise UserError(
                f"{type(self.gradient).__name__} goes through what features read, and {type(features).__name__} reads "
                "no parameters: take DenseAttributes, or another gradient"
            )
        with torch.no_grad():
            found = blocks_of(features, renderer.render(scenes))
        truth = features.ground_truth(scenes, renderer.centres(scenes))
        if not any(block in truth for block in self.objective.blocks or found):
            raise UserError(
                "no block of the objective of parameters is one whose true values are known, so there is nothing to "
                f"learn from. {suggest('', truth)}"
            )
        # The value is the predicted feature's, the gradient that of the true feature.
        return {name: v + truth[name] - truth[name].detach() if name in truth else v for name, v in found.items()}


def _parameters(model: SceneModel) -> ParameterModel:
    assert model.parameters is not None
    return model.parameters
