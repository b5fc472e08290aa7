"""Pathwise gradient, through the pixels of a differentiable renderer."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.gradients.base import Cost, Drawn, Everyone, Gradient, alone
from ms2.models.parameters import ParameterModel


class Pathwise(Gradient):
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
