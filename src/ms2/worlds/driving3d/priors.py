"""Structure priors of driving scenes: a simple one, and those of Structured Domain Randomisation's scenarios."""

import math
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Annotated

import torch

from ms2.core.bounds import Bounds, Count, Fraction, Seed
from ms2.core.errors import UserError, suggest
from ms2.priors.structure import ListLengthPrior
from ms2.worlds.driving3d.declaration import OBJECTS, SCENARIO_SETTINGS, SCENARIOS
from ms2.worlds.driving3d.grammar import list_symbol

DISPERSION = 0.1
"""Dispersion of counts, whose variance is mean * (1 + DISPERSION * mean): larger than Poisson's."""


MeanCount = Annotated[float, Bounds(ge=0, le=100)]
"""Mean number of objects of a class."""
TailMean = Annotated[float, Bounds(gt=0, le=100)]
"""Mean of a geometric distribution."""
Dispersion = Annotated[float, Bounds(ge=0, le=10)]
"""Overdispersion: the variance of a count is mean * (1 + dispersion * mean)."""


class SimpleStreets(ListLengthPrior):
    """The simple prior: uniform object counts per class, whatever the scenario.

    Args:
        min_count: Minimum number of objects of each class.
        max_count: Maximum number of objects of each class.
        tail_fraction: Probability that a class's count is drawn from a geometric distribution instead, to pretrain on
            long lists.
        tail_mean: Mean of the geometric distribution.
    """

    def __init__(
        self,
        min_count: Count = 1,
        max_count: Count = 3,
        tail_fraction: Fraction = 0.0,
        tail_mean: TailMean = 8.0,
    ) -> None:
        if min_count > max_count:
            raise UserError(
                f"min_count and max_count must be counts in ascending order, not {min_count} and {max_count}"
            )
        few, wide = [0.0] * min_count + [1 / (max_count - min_count + 1)] * (max_count - min_count + 1), [0.0]
        if tail_fraction:
            wide = negative_binomial(tail_mean, 1.0)  # with a dispersion of 1, that is geometric
        counts = [(1 - tail_fraction) * a + tail_fraction * b for a, b in zip_longest(few, wide, fillvalue=0.0)]
        super().__init__(lengths={list_symbol(name): counts for name in OBJECTS})


class ScenarioPrior(ListLengthPrior):
    """One scenario, with negative binomial object counts per class.

    Args:
        scenario: Name of the scenario.
        mean_counts: Mean counts by class, overriding the scenario's.
        dispersion: The variance of a count is mean * (1 + dispersion * mean); 0 gives Poisson's distribution.
    """

    def __init__(
        self, scenario: str, mean_counts: Mapping[str, MeanCount] | None = None, dispersion: Dispersion = DISPERSION
    ) -> None:
        if scenario not in SCENARIOS:
            raise UserError(f"there is no scenario {scenario!r}. {suggest(scenario, SCENARIOS)}")
        _check_classes(mean_counts or {})
        means = dict(SCENARIO_SETTINGS[scenario].mean_counts) | dict(mean_counts or {})
        super().__init__(
            lengths={list_symbol(name): negative_binomial(means[name], dispersion) for name in OBJECTS},
            weights={"Scene": [float(name == scenario) for name in SCENARIOS]},
        )


class Rural(ScenarioPrior):
    """Country roads: many trees and bushes, few cars, hardly any houses.

    Args:
        mean_counts: Mean counts by class, overriding the scenario's.
        dispersion: The variance of a count is mean * (1 + dispersion * mean); 0 gives Poisson's distribution.
    """

    def __init__(self, mean_counts: dict[str, MeanCount] | None = None, dispersion: Dispersion = DISPERSION) -> None:
        super().__init__("Rural", mean_counts, dispersion)


class Suburban(ScenarioPrior):
    """Residential streets: houses, gardens, parked cars.

    Args:
        mean_counts: Mean counts by class, overriding the scenario's.
        dispersion: The variance of a count is mean * (1 + dispersion * mean); 0 gives Poisson's distribution.
    """

    def __init__(self, mean_counts: dict[str, MeanCount] | None = None, dispersion: Dispersion = DISPERSION) -> None:
        super().__init__("Suburban", mean_counts, dispersion)


class Urban(ScenarioPrior):
    """Inner cities: rows of buildings, traffic, pedestrians.

    Args:
        mean_counts: Mean counts by class, overriding the scenario's.
        dispersion: The variance of a count is mean * (1 + dispersion * mean); 0 gives Poisson's distribution.
    """

    def __init__(self, mean_counts: dict[str, MeanCount] | None = None, dispersion: Dispersion = DISPERSION) -> None:
        super().__init__("Urban", mean_counts, dispersion)


class RandomStreets(ListLengthPrior):
    """Random count distributions per class, and random weights of the scenarios, as a hidden target distribution.

    Args:
        seed: Seed of the distributions.
        max_counts: Maximum count by class; the default is 2 for trucks, which occlude much, and 6 for other classes.
    """

    def __init__(self, seed: Seed = 0, max_counts: dict[str, Count] | None = None) -> None:
        _check_classes(max_counts or {})
        generator = torch.Generator().manual_seed(seed)
        limits = {name: (max_counts or {}).get(name, 2 if name == "truck" else 6) for name in OBJECTS}
        super().__init__(
            lengths={
                list_symbol(name): (torch.rand(limit + 1, generator=generator) ** 2).tolist()
                for name, limit in limits.items()
            },
            weights={"Scene": torch.rand(len(SCENARIOS), generator=generator).tolist()},
        )


def _check_classes(names: Iterable[str]) -> None:
    for name in names:
        if name not in OBJECTS:
            raise UserError(f"there is no class {name!r} in driving scenes. {suggest(name, OBJECTS)}")


def negative_binomial(mean: float, dispersion: float) -> list[float]:
    """Compute negative binomial probabilities of 0, 1, 2, ..., truncated where at most 1e-4 remains.

    The variance is mean * (1 + dispersion * mean); a dispersion of 0 gives Poisson's distribution.
    """
    if mean == 0:
        return [1.0]
    size = 1 / dispersion if dispersion else math.inf
    log_first = -mean if not dispersion else -size * math.log1p(mean * dispersion)
    p = [math.exp(log_first)]
    while sum(p) < 1 - 1e-4:
        k = len(p)
        step = mean if not dispersion else (size + k - 1) * mean / (size + mean)
        p.append(p[-1] * step / k)
    return p
