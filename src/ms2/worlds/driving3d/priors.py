"""Structure priors of driving scenes: a simple one, and those of Structured Domain Randomisation's scenarios."""

import math
from collections.abc import Iterable, Mapping
from itertools import zip_longest

import torch

from ms2.core.errors import UserError, suggest
from ms2.priors.structure import Repetition
from ms2.worlds.driving3d.grammar import OBJECTS, SCENARIOS, plural

TYPICAL: Mapping[str, tuple[float, ...]] = {
    #            car truck cyclist pedestrian tree bush house building sign light pole
    "Rural": (3.0, 0.2, 0.3, 0.4, 28.0, 10.0, 1.0, 0.0, 1.0, 0.1, 2.0),
    "Suburban": (5.0, 0.2, 0.6, 1.5, 14.0, 7.0, 5.0, 0.5, 1.5, 0.3, 2.5),
    "Urban": (8.0, 0.4, 1.0, 4.0, 8.0, 2.0, 0.5, 7.0, 2.5, 1.5, 3.0),
}
"""Mean number of each of ``OBJECTS`` in a scene; ours, since nobody has published theirs."""
SPREAD = 0.1
"""A number varies by mean * (1 + SPREAD * mean): streets differ more than by Poisson's law."""


class SimpleStreets(Repetition):
    """The simple prior: a few of each kind of object, every number alike, in every scenario.

    Args:
        low: Fewest objects of each class.
        high: Most objects of each class.
        tail: Share of classes whose number is drawn from a wide, geometric distribution instead, to pretrain on.
        tail_mean: Mean of that distribution, in objects.
    """

    def __init__(self, low: int = 1, high: int = 3, tail: float = 0.0, tail_mean: float = 8.0) -> None:
        if not 0 <= low <= high:
            raise UserError(f"low and high are numbers of objects, the fewest and the most, and can't be {low}, {high}")
        if not 0 <= tail <= 1 or not tail_mean > 0:
            raise UserError(f"tail is a share and tail_mean a positive number; they can't be {tail} and {tail_mean}")
        few, wide = [0.0] * low + [1 / (high - low + 1)] * (high - low + 1), [0.0]
        if tail:
            wide = negative_binomial(tail_mean, 1.0)  # with a spread of 1, that is geometric
        numbers = [(1 - tail) * a + tail * b for a, b in zip_longest(few, wide, fillvalue=0.0)]
        super().__init__(lengths={plural(name): numbers for name in OBJECTS})


class Streets(Repetition):
    """Scenes of one scenario, each number from a negative binomial distribution: as Poisson's, but wider.

    Args:
        scenario: Which of the scenarios.
        means: Mean numbers by class, where they are to differ from the scenario's.
        spread: Variance of a number is mean * (1 + spread * mean); 0 is Poisson's.
    """

    def __init__(self, scenario: str, means: Mapping[str, float] | None = None, spread: float = SPREAD) -> None:
        if scenario not in SCENARIOS:
            raise UserError(f"there is no scenario {scenario!r}. {suggest(scenario, SCENARIOS)}")
        _check(means or {})
        numbers = dict(zip(OBJECTS, TYPICAL[scenario], strict=True)) | dict(means or {})
        super().__init__(
            lengths={plural(name): negative_binomial(mean, spread) for name, mean in numbers.items()},
            weights={"Scene": [float(name == scenario) for name in SCENARIOS]},
        )


class Rural(Streets):
    """Country roads: trees and bushes, few cars, hardly a house.

    Args:
        means: Mean numbers by class, where they are to differ from the scenario's.
        spread: Variance of a number is mean * (1 + spread * mean); 0 is Poisson's.
    """

    def __init__(self, means: dict[str, float] | None = None, spread: float = SPREAD) -> None:
        super().__init__("Rural", means, spread)


class Suburban(Streets):
    """Residential streets: houses, gardens, parked cars.

    Args:
        means: Mean numbers by class, where they are to differ from the scenario's.
        spread: Variance of a number is mean * (1 + spread * mean); 0 is Poisson's.
    """

    def __init__(self, means: dict[str, float] | None = None, spread: float = SPREAD) -> None:
        super().__init__("Suburban", means, spread)


class Urban(Streets):
    """Inner cities: rows of buildings, traffic, people.

    Args:
        means: Mean numbers by class, where they are to differ from the scenario's.
        spread: Variance of a number is mean * (1 + spread * mean); 0 is Poisson's.
    """

    def __init__(self, means: dict[str, float] | None = None, spread: float = SPREAD) -> None:
        super().__init__("Urban", means, spread)


class HiddenStreets(Repetition):
    """A target to be found again: irregular random distributions of every class's number, and of the scenarios.

    Args:
        seed: Seed of the distributions.
        most: Most objects of a class, by class; 2 trucks, which hide much, and 6 of all others where it is not given.
    """

    def __init__(self, seed: int = 0, most: dict[str, int] | None = None) -> None:
        _check(most or {})
        generator = torch.Generator().manual_seed(seed)
        limits = {name: (most or {}).get(name, 2 if name == "truck" else 6) for name in OBJECTS}
        super().__init__(
            lengths={
                plural(name): (torch.rand(limit + 1, generator=generator) ** 2).tolist()
                for name, limit in limits.items()
            },
            weights={"Scene": torch.rand(len(SCENARIOS), generator=generator).tolist()},
        )


def _check(names: Iterable[str]) -> None:
    """Names of classes, as a person gave them.

    Raises:
        UserError: If there is no such class.
    """
    for name in names:
        if name not in OBJECTS:
            raise UserError(f"there is no class {name!r} in driving scenes. {suggest(name, OBJECTS)}")


def negative_binomial(mean: float, spread: float) -> list[float]:
    """Probabilities of 0, 1, 2, ... with this mean and variance mean * (1 + spread * mean), up to where 1e-4 is left.

    Raises:
        UserError: If the mean or the spread is negative.
    """
    if mean < 0 or spread < 0:
        raise UserError(f"a mean number and its spread can't be negative, as {mean} and {spread} are")
    if mean == 0:
        return [1.0]
    size = 1 / spread if spread else math.inf
    log_first = -mean if not spread else -size * math.log1p(mean * spread)
    p = [math.exp(log_first)]
    while sum(p) < 1 - 1e-4:
        k = len(p)
        step = mean if not spread else (size + k - 1) * mean / (size + mean)
        p.append(p[-1] * step / k)
    return p
