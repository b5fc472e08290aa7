"""Lists of objects under one parent: their fit to what was seen, its code length, and probabilities of scenes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.learning.induction.codes import LengthTable, choice_code, choice_probabilities, fit_lengths, integer_code

Item = tuple[tuple[int, int], ...]
"""Classes that always come together, each with the number of its objects in one item."""


class Place(NamedTuple):
    """What is under each of m parents: the scenes themselves, or all objects of one class.

    Attributes:
        counts: Number of children of each class.
        rank: Number of each parent among those of its class beside it: 1 for the second road. 0 for scenes.
        num_symbols: Number of symbols that a rule can name.
    """

    counts: Int[Tensor, "m c"]
    rank: Int[Tensor, " m"]
    num_symbols: int


@dataclass(frozen=True)
class ListRule:
    """A list of items, each one of several alternatives: ``Cars -> car Cars | ε``.

    Attributes:
        items: The alternatives.
        leading: How many of the first parents have length distributions of their own: 1 if the list of the first road
            differs from those of all others.
    """

    items: tuple[Item, ...]
    leading: int = 0

    @property
    def classes(self) -> tuple[int, ...]:
        """Indices of all classes in it."""
        return tuple(c for item in self.items for c, _ in item)

    @property
    def plain(self) -> bool:
        """Whether it is a list of single objects of one class."""
        return len(self.items) == 1 and self.items[0][0][1] == 1 and len(self.items[0]) == 1


@dataclass(frozen=True)
class FittedList:
    """A list with the distributions that were learned.

    Attributes:
        rule: The list.
        tables: Distribution of its length for each leading parent, and for all others.
        choice: Probability of each alternative.
        data_code: Nats that tell what was seen, with the tables.
        rule_code: Nats that tell the rules.
    """

    rule: ListRule
    tables: tuple[LengthTable, ...]
    choice: Float[Tensor, " k"]
    data_code: float
    rule_code: float

    @property
    def code(self) -> float:
        """Nats in all."""
        return self.data_code + self.rule_code

    @property
    def constant(self) -> int | None:
        """The length of the list, if it is always the same and none of its parents differs; else None."""
        fixed = self.rule.leading == 0 and self.tables[0].family == "constant"
        return len(self.tables[0].weights) - 1 if fixed else None

    def log_prob(self, place: Place) -> Float[Tensor, " m"]:
        """Compute the log-probability of the children of each parent that are in this list."""
        numbers, fits = _items(place.counts, self.rule)
        length = numbers.sum(1)
        row = place.rank.clamp(max=len(self.tables) - 1)
        by_row = torch.stack([table.log_prob(length) for table in self.tables], 1)
        chosen = torch.where(numbers > 0, numbers * self.choice.log(), 0.0).sum(1)
        total = by_row.gather(1, row[:, None])[:, 0] + log_orders(numbers) + chosen
        return total.masked_fill(~fits, -torch.inf)


def fit_list(place: Place, rule: ListRule) -> FittedList | None:
    """Fit a list to what is under some parents; None if objects that it holds together do not come together."""
    numbers, fits = _items(place.counts, rule)
    if not bool(fits.all()):
        return None
    length = numbers.sum(1)
    row = place.rank.clamp(max=rule.leading)
    tables = tuple(fit_lengths(length[row == k]) for k in range(rule.leading + 1))
    total = numbers.sum(0)
    code = sum(table.code for table in tables)
    if len(rule.items) > 1:
        code += float(choice_code(total)) - float(log_orders(numbers).sum())
    fitted = FittedList(rule, tables, choice_probabilities(total), code, 0.0)
    return FittedList(rule, tables, fitted.choice, code, _rule_code(fitted, place.num_symbols))


def _rule_code(fitted: FittedList, num_symbols: int) -> float:
    """Compute the nats that tell the list's rules: each symbol and each end of a rule is one of ``num_symbols``."""
    rule, times = fitted.rule, fitted.constant
    alternatives = 0 if rule.plain else sum(1 + sum(copies for _, copies in item) for item in rule.items)
    # a list is named by its parent, and has item, list and end in one rule, the end alone in the other
    symbols = 5 if times is None else times
    return (symbols + alternatives) * math.log(num_symbols) + integer_code(rule.leading)


def _items(counts: Int[Tensor, "m c"], rule: ListRule) -> tuple[Int[Tensor, "m k"], Bool[Tensor, " m"]]:
    """Return the number of items of each alternative, and where the objects can be told as such."""
    numbers, fits = [], torch.ones(len(counts), dtype=torch.bool)
    for item in rule.items:
        first, copies = item[0]
        number = counts[:, first] // copies
        numbers.append(number)
        for c, times in item:
            fits &= counts[:, c] == number * times
    return torch.stack(numbers, 1), fits


def log_orders(numbers: Int[Tensor, "m k"]) -> Float[Tensor, " m"]:
    """Compute the log of the number of orders of items, which nothing tells apart: a multinomial coefficient."""
    numbers = numbers.double()
    return torch.lgamma(numbers.sum(1) + 1) - torch.lgamma(numbers + 1).sum(1)


@dataclass(frozen=True)
class Expansion:
    """All lists under the parents of one place, with their fit.

    Attributes:
        lists: The lists; no class is in two of them.
    """

    lists: tuple[FittedList, ...]

    @cached_property
    def code(self) -> float:
        """Nats that tell what is under the parents, the tables and the rules."""
        return sum(one.code for one in self.lists)

    @property
    def rules(self) -> tuple[ListRule, ...]:
        """The lists without their fit."""
        return tuple(one.rule for one in self.lists)

    def log_prob(self, place: Place) -> Float[Tensor, " m"]:
        """Compute the log-probability of the children of each parent; minus infinity for those of other classes."""
        known = torch.zeros(place.counts.shape[1], dtype=torch.bool)
        total = torch.zeros(len(place.counts), dtype=torch.double)
        for one in self.lists:
            known[list(one.rule.classes)] = True
            total = total + one.log_prob(place)
        return total.masked_fill((place.counts[:, ~known] > 0).any(1), -torch.inf)


def fit_all(place: Place, rules: Sequence[ListRule]) -> Expansion | None:
    """Fit lists to a place; None if one of them does not fit."""
    fitted = [fit_list(place, rule) for rule in rules]
    whole = [one for one in fitted if one is not None]
    return Expansion(tuple(whole)) if len(whole) == len(fitted) else None
