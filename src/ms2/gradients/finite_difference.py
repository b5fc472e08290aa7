"""Finite differences through any renderer."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError
from ms2.gradients.base import Cost, Drawn, Everyone, Gradient, alone
from ms2.models.parameters import ParameterModel


class FiniteDifference(Gradient):
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
