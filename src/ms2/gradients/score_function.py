"""Score-function gradient (REINFORCE) of attributes."""

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.gradients.advantages import Advantage, LeaveOneOut
from ms2.gradients.base import CostFunction, Gradient, SampledScenes
from ms2.models.parameters import ParameterModel


class ScoreFunction(Gradient):
    """REINFORCE: E[(cost - baseline) grad log q(V | T)], for any renderer.

    Args:
        advantage: Computes advantages from costs; `LeaveOneOut` by default.

    Example:
        >>> learner = ParameterLearner(KDE(bandwidth=0.01), ScoreFunction(Normalised()))  # doctest: +SKIP
    """

    def __init__(self, advantage: Advantage | None = None) -> None:
        super().__init__()
        self.advantage = advantage or LeaveOneOut()

    def loss(
        self,
        model: ParameterModel,
        samples: SampledScenes,
        cost: CostFunction,
        generator: torch.Generator,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"]]:
        """Return the surrogate mean_j advantage_j * log q(V_j), and the costs."""
        values = samples.values.detach()
        with torch.no_grad():
            costs = cost(model.with_values(samples.prior, values))
            # Each process would have a baseline of its own if advantages were not those of all samples.
            advantage = self.advantage(processes.gather_equal(costs))[processes.local_indices(len(costs), costs.device)]
        return (advantage * model.log_prob(samples.distribution, values)).mean(), costs
