"""Gradients of parameters: from the costs of images to the parameter model's weights, with or without a derivative.

All of them estimate the gradient of E[cost(scene)] where a scene's attributes come from a `ParameterModel`, the cost
being the functional derivative of the divergence that an objective measures: its score, for given sets of samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.estimators import Estimator, LeaveOneOut
from ms2.parameters import ParameterModel, Proposal
from ms2.registry import Plugin, UserError, available
from ms2.render import Renderer
from ms2.scene import SceneBatch

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
        through_reading: Whether it differentiates costs, but what features read in place of images.
    """

    through_images = False
    through_reading = False

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

    def check(self, renderer: Renderer, model: ParameterModel) -> None:
        """Refuse what this can't differentiate.

        Raises:
            UserError: If the images have no derivative in one of the model's attributes.
        """
        flat = sorted(model.columns.drawn - renderer.differentiable)
        if self.through_images and flat:
            others = {name: cls for name, cls in _others().items() if not cls.through_images}
            raise UserError(
                f"{type(self).__name__} needs images that are differentiable in what is learned, and those of "
                f"{type(renderer).__name__} are not in {', '.join(map(repr, flat))}. Take another gradient "
                f"({', '.join(others)}), or learn other attributes (model.parameters.model.only)."
            )


def _others() -> dict[str, type[Gradient]]:
    return {name: cls for name, cls in available(Gradient).items() if issubclass(cls, Gradient)}


class Exact(Gradient):
    """The pathwise gradient: through features, image and attributes, back to the weights.

    As in Meta-Sim where the renderer is differentiable. It is exact for the scenes at hand.
    """

    through_images = True

    def loss(
        self, model: ParameterModel, drawn: Drawn, cost_of: Cost, generator: torch.Generator, everyone: Everyone = alone
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """The mean cost itself."""
        cost = cost_of(model.applied(drawn.prior, drawn.values))
        return cost.mean(), cost.detach()


class Reading(Exact):
    """As if features were what they read: through the scenes' own parameters, past the image.

    An extractor that was trained to read parameters off images follows them, give or take its errors, which for small
    objects change from pixel to pixel: the derivative through its pixels is then mostly that of its errors. For digits
    of 8 pixels, how far right they are read to be has a derivative of -0.9 by their place, with a deviation of 16
    through the image, and of none through what is read. Costs are those of the images all the same; what is neglected
    is that one object may hide another. It needs no derivative of the renderer, nor the time that one takes, and
    features that are a `ReadingExtractor`.
    """

    through_images = False
    through_reading = True


class ScoreFunction(Gradient):
    """REINFORCE: E[(cost - baseline) grad log q(V | T)], for any renderer.

    Args:
        estimator: Turns costs into advantages; leaving one out by default.
    """

    def __init__(self, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.estimator = estimator or LeaveOneOut()

    def loss(
        self, model: ParameterModel, drawn: Drawn, cost_of: Cost, generator: torch.Generator, everyone: Everyone = alone
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """The surrogate mean_j advantage_j log q(V_j)."""
        values = drawn.values.detach()
        with torch.no_grad():
            cost = cost_of(model.applied(drawn.prior, values))
        return (everyone(self.estimator, cost) * model.log_prob(drawn.proposal, values)).mean(), cost


class FiniteDifferences(Gradient):
    """Central differences of the cost along random directions of a scene's attributes, and backwards from there.

    A direction moves all attributes of a scene at once, each a step to either side by the toss of a coin (Spall 1992,
    simultaneous perturbation): two more images for each direction, however many attributes there are. Meta-Sim moves
    one attribute at a time, and its public code multiplies by the step where it has to divide.

    Args:
        step: Half the distance of the two images, in the units of `Proposal`: radians of angles, of other attributes
            1 is at most a quarter of the way between their bounds.
        directions: Directions for each scene.
    """

    def __init__(self, step: float = 0.05, directions: int = 1) -> None:
        super().__init__()
        if not step > 0 or directions < 1:
            raise UserError(f"step must be positive and directions at least 1, not {step} and {directions}")
        self.step, self.directions = step, directions

    def loss(
        self, model: ParameterModel, drawn: Drawn, cost_of: Cost, generator: torch.Generator, everyone: Everyone = alone
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """The surrogate mean_j of (dcost_j / dV_j) V_j, its first factor held."""
        values = drawn.values.detach()
        slope = torch.zeros_like(values)
        with torch.no_grad():
            cost = cost_of(model.applied(drawn.prior, values))
            for _ in range(self.directions):
                coin = torch.rand(values.shape, generator=generator, device=values.device) < 0.5
                ahead = torch.where(coin, 1.0, -1.0)
                up, down = (cost_of(model.applied(drawn.prior, values + sign * self.step * ahead)) for sign in (1, -1))
                slope += ((up - down) / (2 * self.step * self.directions))[:, None, None] * ahead
        return (slope * drawn.values * drawn.proposal.active).sum((1, 2)).mean(), cost
