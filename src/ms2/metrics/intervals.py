"""Values with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Interval:
    """A measured value and the ends of its confidence interval; `low <= value <= high`, all in the value's unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of independent measurements, and its interval by Student's t; that of a single one has no width."""
    numbers = torch.tensor(values, dtype=torch.double)
    mean = float(numbers.mean())
    if len(values) < 2:
        return Interval(mean, mean, mean)
    from scipy.special import stdtrit  # takes half a second to import

    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * float(numbers.std()) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def _check_options(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples={resamples} and level={level} were given, but resamples must be at least 1 and level between "
            "0 and 1: try resamples=500, level=0.95."
        )


Found = tuple[Interval, Interval, Interval | None]
"""The model's distance, the prior's, and the relative change, None where the prior's distance might be 0."""
