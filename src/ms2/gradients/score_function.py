"""Score-function gradient (REINFORCE) of parameters."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.gradients.advantages import Advantage, LeaveOneOut
from ms2.gradients.base import Cost, Drawn, Everyone, Gradient, alone
from ms2.models.parameters import ParameterModel


class ScoreFunction(Gradient):
    """REINFORCE: E[(cost - baseline) grad log q(V | T)], for any renderer.

    Args:
        estimator: Turns costs into advantages; leaving one out by default.
    """

    def __init__(self, estimator: Advantage | None = None) -> None:
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
