"""Pathwise (reparameterisation) gradient, through the pixels of a differentiable renderer."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.gradients.base import CostFunction, Gradient, SampledScenes
from ms2.models.parameters import ParameterModel


class Pathwise(Gradient):
    """Pathwise gradient: through features, image and attributes to the weights.

    Meta-Sim's, where the renderer is differentiable. It is exact for the sampled scenes.

    Example:
        >>> learner = ParameterLearner(KDE(bandwidth=0.01), Pathwise())  # doctest: +SKIP
    """

    through_images = True

    def loss(
        self,
        model: ParameterModel,
        samples: SampledScenes,
        cost: CostFunction,
        generator: torch.Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """Return the mean cost itself, and the costs."""
        costs = cost(model.with_values(samples.prior, samples.values))
        return costs.mean(), costs.detach()
