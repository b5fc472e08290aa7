"""The interface of gradient estimators: from costs of images to a loss of the parameter model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.registry import Plugin, available
from ms2.models.parameters import AttributeDistribution, ParameterModel
from ms2.scene.batch import SceneBatch

CostFunction = Callable[[SceneBatch], Float[Tensor, " b"]]
"""Computes the cost of each of b scenes. Scene i is compared with those of the first call, except the i-th."""


class SampledScenes(NamedTuple):
    """Scenes of a step, sampled from the parameter model.

    Attributes:
        prior: The scenes with the prior's attributes.
        distribution: Distribution of their new attributes.
        values: Attributes sampled from it.
    """

    prior: SceneBatch
    distribution: AttributeDistribution
    values: Float[Tensor, "b N k"]


class Gradient(Plugin, nn.Module, ABC, kind="gradients"):
    """Builds a surrogate loss whose gradient estimates that of the mean cost.

    Attributes:
        through_images: Whether it differentiates costs through features and images.
        straight_through: Whether it differentiates costs through the true features of scenes, in place of those of
            images.
    """

    through_images = False
    straight_through = False

    @abstractmethod
    def loss(
        self,
        model: ParameterModel,
        samples: SampledScenes,
        cost: CostFunction,
        generator: torch.Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """Compute the surrogate loss, and the costs of the sampled scenes without gradients.

        Args:
            model: What the scenes were sampled from.
            samples: The scenes.
            cost: Cost of scenes, to be called with the sampled scenes first.
            generator: Draws the random numbers of the estimate.
            processes: The processes that share the step, each with as many scenes.
        """

    def check(self, learned: Collection[str], differentiable: Collection[str]) -> None:
        """Check that images have the derivatives that this estimator needs.

        Args:
            learned: Names of the attributes that are learned.
            differentiable: Names of the attributes in which the renderer's images are differentiable.

        Raises:
            UserError: If images have no derivative in a learned attribute.
        """
        flat = sorted(set(learned) - set(differentiable))
        if self.through_images and flat:
            others = [name for name, cls in available(Gradient).items() if not getattr(cls, "through_images", False)]
            raise UserError(
                f"{type(self).__name__} needs images that are differentiable in what is learned, and the renderer's "
                f"are not in {', '.join(map(repr, flat))}. Take another gradient ({', '.join(others)}), or learn other "
                "attributes (model.parameters.learned_attributes)."
            )
