"""Shares of a mixture's components, and the order of its scenes, every beginning of which has these shares."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

from ms2.core.errors import UserError
from ms2.core.seeding import generator

Mix = str | Sequence[float | str]
"""``even``, or the weight of each component: ``[2, 1, 1]``."""
MAX_PERIOD = 10_000
"""About the largest sum of the whole numbers to which weights are rounded."""


def whole_weights(mix: Mix, names: Sequence[str]) -> tuple[int, ...]:
    """Convert the weights of components to the smallest whole numbers of the same ratio: 0.5, 0.3, 0.2 to 5, 3, 2.

    A ratio that takes larger numbers than add up to `MAX_PERIOD` is rounded to one that does not. What is returned is
    returned unchanged when it is given.

    Args:
        mix: ``even``, or a weight for each component.
        names: Names of the components.

    Raises:
        UserError: If there is not one positive weight for each component.
    """
    given: list[float | str] = [mix] if isinstance(mix, str) else list(mix)
    if given == ["even"]:
        given = [1] * len(names)
    weights = [_number(one) for one in given]
    if len(weights) != len(names):
        raise UserError(
            f"mix gives {_counted(len(weights), 'weight')} for {_counted(len(names), 'run')} ({', '.join(names)}): "
            "give 'even', or one weight for each run"
        )
    total = math.fsum(weights)
    if not all(weight.is_integer() for weight in weights) or total > 2 * MAX_PERIOD:
        for name, weight in zip(names, weights, strict=True):
            if weight / total < 1 / MAX_PERIOD:
                raise UserError(
                    f"mix gives {name} less than one of {MAX_PERIOD} scenes: leave it out, or give it more weight"
                )
        shares = [Fraction(weight / total).limit_denominator(MAX_PERIOD) for weight in weights]
        scale = min(MAX_PERIOD, math.lcm(*(share.denominator for share in shares)))
        weights = [float(round(share * scale)) for share in shares]
    whole = [int(weight) for weight in weights]
    return tuple(weight // math.gcd(*whole) for weight in whole)


def _number(given: float | str) -> float:
    """Return a weight as a number."""
    try:
        weight = float(given)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(
            f"mix has {given!r}, which is no weight: give 'even', or a positive number for each run, such as 2 1 1 or "
            "0.5 0.3 0.2"
        )
    return weight


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def components_of(weights: tuple[int, ...], seed: int, numbers: range) -> list[int]:
    """Draw which component each of some scenes comes from.

    Of the first n scenes, a component with the share w has n w, rounded up or down, whatever n is; the rest is random.

    Args:
        weights: Whole weights of the components.
        seed: Seed of the order.
        numbers: Numbers of the scenes; what is drawn for a number does not depend on the others.
    """
    period = sum(weights)
    periods = range(numbers.start // period, -(-numbers.stop // period))
    order = [component for number in periods for component in _period(weights, seed, number)]
    first = periods.start * period
    return order[numbers.start - first : numbers.stop - first]


@lru_cache(maxsize=64)
def _period(weights: tuple[int, ...], seed: int, number: int) -> tuple[int, ...]:
    """Draw the components of one period, which has as many scenes of each component as its weight.

    One after the other, in proportion to the scenes that a component has left, of those components that

    - stay at or below their share of the scenes so far, rounded up, and
    - are due: where the scenes that components lack of their shares at a later place, rounded down, fill all places up
      to there, one of these scenes must come next.

    With these two rules the shares can be kept to the end: it is the scheduling of unit jobs with release times and
    deadlines on one machine (Baruah et al., Proportionate progress, Algorithmica 1996).
    """
    total, whole = sum(weights), np.array(weights)
    exact = np.arange(1, total + 1)[:, None] * whole
    least, most = exact // total, -(-exact // total)  # of the first 1, 2, ... scenes
    drawn, order = np.zeros_like(whole), []
    for n, u in enumerate(torch.rand(total, generator=generator(seed, "mixture", number), dtype=torch.double).tolist()):
        owed = (least[n:] - drawn).clip(min=0).sum(1)
        full = n + int((owed == np.arange(1, total - n + 1)).argmax())  # at the latest at the end of the period
        left = np.where(drawn < np.minimum(most[n], least[full]), whole - drawn, 0)
        chosen = int(np.searchsorted(left.cumsum(), u * left.sum(), side="right"))
        drawn[chosen] += 1
        order.append(chosen)
    return tuple(order)
