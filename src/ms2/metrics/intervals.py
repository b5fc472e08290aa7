"""Values with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Interval:
    """A measured value and the ends of its confidence interval; `low <= value <= high`, all in the value's unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class PriorAndLearned(NamedTuple):
    """A distance to the target before and after learning.

    Attributes:
        learned: Distance of the learned model.
        prior: Distance of the prior.
        change: Relative change, -0.5 for half of the prior's; None where the prior's distance might be 0.
    """

    learned: Interval
    prior: Interval
    change: Interval | None


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Compute the mean of independent measurements, and its interval by Student's t, of width 0 for a single one."""
    numbers = torch.tensor(values, dtype=torch.double)
    mean = float(numbers.mean())
    if len(values) < 2:
        return Interval(mean, mean, mean)
    from scipy.special import stdtrit  # takes half a second to import

    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * float(numbers.std()) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)
