"""The interface of learners: the loss of one of the two models, and how its weights are optimised."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from jaxtyping import Float
from torch import Generator, Tensor, nn

from ms2.core.bounds import PositiveFloat
from ms2.core.clipping import clip_gradient
from ms2.core.distributed import Processes
from ms2.core.settings import Configured
from ms2.features.base import FeatureExtractor
from ms2.models.scene_model import SceneModel
from ms2.scene.batch import SceneBatch

Real = Mapping[str, Float[Tensor, "m _"]]
"""Features of target images, by block."""
Log = dict[str, Tensor]
"""Scalars to log, by name."""


class Learner(Configured, nn.Module, ABC):
    """Trains one of the two models of a `SceneModel`, which is an argument of each step.

    Args:
        lr: Learning rate (Adam).
        lr_decay: Whether the learning rate falls linearly to zero.
        max_grad_norm: Norm to which gradients are clipped; null for no clipping.
    """

    def __init__(self, lr: PositiveFloat, lr_decay: bool, max_grad_norm: PositiveFloat | None) -> None:
        super().__init__()
        self.lr, self.lr_decay, self.max_grad_norm = lr, lr_decay, max_grad_norm

    @abstractmethod
    def check(self, model: SceneModel) -> None:
        """Check that the settings fit a scene model.

        Raises:
            UserError: If they don't.
        """

    def check_features(self, model: SceneModel, features: FeatureExtractor, scenes: SceneBatch) -> None:
        """Check that the objective can compare features of images, by a few scenes of the prior.

        Raises:
            UserError: If it can't.
        """

    @abstractmethod
    def weights(self, model: SceneModel) -> list[nn.Parameter]:
        """Return the weights to optimise."""

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate after a fraction of the learner's steps."""
        return self.lr * (1 - progress * self.lr_decay)

    def clip_gradient(self, model: SceneModel) -> None:
        """Clip the gradient norm of the weights."""
        if self.max_grad_norm is not None:
            clip_gradient(self.weights(model), self.max_grad_norm)

    @abstractmethod
    def loss(
        self,
        model: SceneModel,
        features: FeatureExtractor,
        real: Real,
        generator: Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Log]:
        """Sample scenes, compare their images with target images, and compute the loss of the model's weights.

        Args:
            model: Samples the scenes.
            features: Embeds their images.
            real: Features of target images: as many images as all processes together sample scenes.
            generator: Draws the scenes of this process.
            processes: The processes that share the step: scores compare the scenes of all of them.

        Returns:
            The loss of this process, and what to log. The mean of the processes' gradients is the gradient of one
            process with all scenes.
        """


def local_number(real: Real, processes: Processes) -> int:
    """Return the number of scenes that this process samples."""
    return len(next(iter(real.values()))) // processes.world_size
