"""Finite differences of the cost, through any renderer."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.bounds import Dimension, PositiveFloat
from ms2.core.distributed import Processes
from ms2.gradients.base import CostFunction, Gradient, SampledScenes
from ms2.models.parameters import ParameterModel


class FiniteDifference(Gradient):
    """Central differences of the cost along random directions of a scene's attributes.

    A direction changes all attributes of a scene at once, each by a step of random sign (Spall 1992, simultaneous
    perturbation): two more images for each direction, however many attributes there are. Meta-Sim changes one
    attribute at a time, and its public code multiplies by the step where it has to divide.

    Args:
        step: Half the difference between the two values, in the units of `AttributeDistribution`: radians of angles; of
            other attributes 1 is at most a quarter of the range between their bounds.
        directions: Number of directions for each scene.

    Example:
        >>> learner = ParameterLearner(KDE(bandwidth=0.01), FiniteDifference(step=0.05))  # doctest: +SKIP
    """

    def __init__(self, step: PositiveFloat = 0.05, directions: Dimension = 1) -> None:
        super().__init__()
        self.step, self.directions = step, directions

    def loss(
        self,
        model: ParameterModel,
        samples: SampledScenes,
        cost: CostFunction,
        generator: torch.Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """Return the surrogate mean_j (dcost_j / dV_j) V_j with a constant first factor, and the costs."""
        prior, values = samples.prior, samples.values.detach()
        slope = torch.zeros_like(values)
        with torch.no_grad():
            costs = cost(model.with_values(prior, values))
            for _ in range(self.directions):
                coin = torch.rand(values.shape, generator=generator, device=values.device) < 0.5
                direction = torch.where(coin, 1.0, -1.0)
                up, down = (cost(model.with_values(prior, values + sign * self.step * direction)) for sign in (1, -1))
                slope += ((up - down) / (2 * self.step * self.directions))[:, None, None] * direction
        return (slope * samples.values * samples.distribution.active).sum((1, 2)).mean(), costs
