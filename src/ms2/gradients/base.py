"""The interface of gradients: from costs of images to a loss of the parameter model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.core.registry import Plugin, available
from ms2.models.parameters import ParameterModel, Proposal
from ms2.scene.batch import SceneBatch

Cost = Callable[[SceneBatch], Float[Tensor, " b"]]
"""Cost of each of b scenes, the j-th compared with all but the j-th of those that it was first asked of."""
Everyone = Callable[[Callable[[Float[Tensor, " m"]], Float[Tensor, " m"]], Float[Tensor, " b"]], Float[Tensor, " b"]]
"""Applies a function of the values of all processes to this one's, and gives its part of the result."""


def alone(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """`Everyone` where there is one process."""
    return function(values)


class Drawn(NamedTuple):
    """Scenes of a step.

    Attributes:
        prior: With the prior's parameters.
        proposal: What the model makes of these.
        values: What was drawn from that.
    """

    prior: SceneBatch
    proposal: Proposal
    values: Float[Tensor, "b N k"]


class Gradient(Plugin, nn.Module, ABC, kind="gradients"):
    """Makes a loss whose gradient estimates that of the mean cost.

    Attributes:
        through_images: Whether it differentiates images and costs.
        straight_through: Whether it differentiates costs, but what features read in place of images.
    """

    through_images = False
    straight_through = False

    @abstractmethod
    def loss(
        self, model: ParameterModel, drawn: Drawn, cost_of: Cost, generator: torch.Generator, everyone: Everyone = alone
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """A surrogate of the mean cost, and the costs of the scenes.

        Args:
            model: What the scenes were drawn from.
            drawn: The scenes.
            cost_of: Cost of scenes, to be asked first of those that were drawn.
            generator: Draws what the estimate needs.
            everyone: Applies what wants the costs of all processes together.
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
            others = {name: cls for name, cls in _others().items() if not cls.through_images}
            raise UserError(
                f"{type(self).__name__} needs images that are differentiable in what is learned, and the renderer's "
                f"are not in {', '.join(map(repr, flat))}. Take another gradient ({', '.join(others)}), or learn other "
                "attributes (model.parameters.only)."
            )


def _others() -> dict[str, type[Gradient]]:
    return {name: cls for name, cls in available(Gradient).items() if issubclass(cls, Gradient)}
