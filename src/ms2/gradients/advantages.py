"""Advantages: a batch's costs less a baseline, the weights of the score-function gradient (REINFORCE)."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import Bounds, PositiveFloat
from ms2.core.registry import Plugin


class Advantage(Plugin, nn.Module, ABC, kind="advantages"):
    """Computes advantages from the costs of a batch; the loss is mean_j advantage_j * log_prob_j.

    Attributes:
        centred: Whether the advantages of a batch sum to zero.
    """

    centred = False

    @abstractmethod
    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Compute the advantages of a whole batch, that of all processes together.

        Args:
            score: Cost of each sample, such as the objective's score; of `TaskReward`, which is maximised, the reward.
        """


class MovingAverage(Advantage):
    """Subtracts a moving average of the mean cost, which starts at its first value: the paper's baseline.

    Args:
        decay: Weight of the earlier average.

    Example:
        >>> advantage = MovingAverage(decay=0.75)
        >>> advantage(torch.tensor([1.0, 3.0]))  # baseline 2
        tensor([-1.,  1.])
        >>> advantage(torch.tensor([6.0, 6.0]))  # baseline 0.75 * 2 + 0.25 * 6
        tensor([3., 3.])
    """

    baseline: Tensor

    def __init__(self, decay: Annotated[float, Bounds(ge=0, lt=1)] = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("baseline", torch.tensor(torch.nan))

    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Subtract the moving average, updated with this batch."""
        mean = score.mean()
        self.baseline.copy_(
            torch.where(self.baseline.isnan(), mean, self.decay * self.baseline + (1 - self.decay) * mean)
        )
        return score - self.baseline


class LeaveOneOut(Advantage):
    """Subtracts from each sample's cost the mean cost of the other samples: REINFORCE leave-one-out (RLOO).

    Kool, van Hoof and Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
    Unbiased for costs that depend on their own sample alone. Costs by kernels depend on the others a little too, which
    leaves a bias of the order of 1 / batch size.

    Example:
        >>> LeaveOneOut()(torch.tensor([1.0, 2.0, 6.0]))
        tensor([-3.0000, -1.5000,  4.5000])
    """

    centred = True

    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Subtract the mean cost of the other samples."""
        return (score - score.mean()) * (len(score) / max(1, len(score) - 1))


class Normalised(Advantage):
    """Standardises costs by the batch's mean and standard deviation, so that learning rates suit any objective.

    Args:
        eps: Added to the standard deviation, so that a batch of equal costs gives no gradient rather than noise.

    Example:
        >>> Normalised()(torch.tensor([1.0, 2.0, 3.0]))
        tensor([-1.2247,  0.0000,  1.2247])
    """

    centred = True

    def __init__(self, eps: PositiveFloat = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Standardise the costs."""
        # Equal costs stay equal to the last bit, where their mean would differ by rounding.
        score = score - score[0]
        return (score - score.mean()) / (score.std(correction=0) + self.eps)
