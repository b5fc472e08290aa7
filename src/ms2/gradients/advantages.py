"""Estimators: from scores to advantages, the weights of the score-function gradient (REINFORCE)."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.core.registry import Plugin


class Advantage(Plugin, nn.Module, ABC, kind="advantages"):
    """Turns the scores of a batch into advantages; the loss is mean_j advantage_j log q(T_j).

    Attributes:
        centred: Whether the advantages of a batch sum to zero.
    """

    centred = False

    @abstractmethod
    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Advantages of a whole batch, that of all processes together."""


class MovingAverage(Advantage):
    """The paper's baseline: a moving average of the mean score, initialised at its first value.

    Args:
        decay: Weight of the past.
    """

    baseline: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise UserError(f"decay must lie in [0, 1), not be {decay}")
        self.decay = decay
        self.register_buffer("baseline", torch.tensor(torch.nan))

    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Scores less the moving average, this batch included."""
        mean = score.mean()
        self.baseline.copy_(
            torch.where(self.baseline.isnan(), mean, self.decay * self.baseline + (1 - self.decay) * mean)
        )
        return score - self.baseline


class LeaveOneOut(Advantage):
    """Each sample's baseline is the mean score of the others: without memory.

    Unbiased for scores that depend on their own sample alone. Scores by kernels depend on the others a little too,
    which leaves a bias of the order of 1 / batch size.
    """

    centred = True

    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Scores less the mean of the other scores."""
        return (score - score.mean()) * (len(score) / max(1, len(score) - 1))


class Normalised(Advantage):
    """The batch's mean taken off and its deviation divided out, so that learning rates carry over.

    Args:
        least: Added to the deviation, so that a batch of equal scores gives no gradient rather than noise.
    """

    centred = True

    def __init__(self, least: float = 1e-8) -> None:
        super().__init__()
        self.least = least

    def forward(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Standardised scores."""
        # equal scores stay equal to the last bit, where their mean would differ by rounding
        score = score - score[0]
        return (score - score.mean()) / (score.std(correction=0) + self.least)
