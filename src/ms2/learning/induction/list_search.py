"""The shortest lists under the parents of one place: a greedy search over rules that are joined, split and refined."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ms2.learning.induction.lists import Expansion, FittedList, Item, ListRule, Place, fit_list

MAX_LEADING = 4
"""Largest number of first parents whose lists have distributions of their own."""


@dataclass
class Budget:
    """Time that a search may take; when it is over, the best so far stands.

    Args:
        seconds: Seconds from now.
    """

    seconds: float
    _end: float = field(init=False)
    exhausted: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        """Whether the time is over; remembered in ``exhausted``."""
        self.exhausted = self.exhausted or time.monotonic() >= self._end
        return self.exhausted


@dataclass(frozen=True)
class Move:
    """One change of a place's lists.

    Attributes:
        name: ``join``, ``split``, ``lead``, ``unlead``, ``group`` or ``ungroup``.
        removed: Lists that it takes away.
        added: Lists that stand in their place.
        saving: Nats that the change saves; negative if it costs.
    """

    name: str
    removed: tuple[ListRule, ...]
    added: tuple[ListRule, ...]
    saving: float


class ListSearch:
    """Search for the shortest lists of one place.

    Args:
        place: What is under each parent.
        leading_allowed: Whether lists may differ by the parent's number.
        alone: Classes whose objects are items by themselves, since lists under them differ by their number.
    """

    def __init__(self, place: Place, leading_allowed: bool = False, alone: Sequence[int] = ()) -> None:
        self.place, self.leading_allowed, self.alone = place, leading_allowed, frozenset(alone)
        self.classes: list[int] = (place.counts.sum(0) > 0).nonzero()[:, 0].tolist()
        self._fits: dict[ListRule, FittedList | None] = {}

    def fit(self, rule: ListRule) -> FittedList | None:
        """Fit a list, or remember its fit."""
        if rule not in self._fits:
            self._fits[rule] = fit_list(self.place, rule)
        return self._fits[rule]

    def expansion(self, rules: Sequence[ListRule]) -> Expansion:
        """Return the fit of lists that do fit."""
        return Expansion(tuple(one for rule in rules if (one := self.fit(rule)) is not None))

    def run(self, budget: Budget, start: Sequence[ListRule] | None = None) -> Expansion:
        """Return the shortest lists that greedy changes lead to, from a list per class and from one list of all.

        Args:
            budget: Time that it may take.
            start: Lists to begin with instead.
        """
        if not self.classes:
            return Expansion(())
        single = [ListRule((((c, 1),),)) for c in self.classes]
        together = tuple(rule.items[0] for rule in single if not self.alone & set(rule.classes))
        separate = [rule for rule in single if self.alone & set(rule.classes)]
        starts = [list(start)] if start else [single, [*separate, *([ListRule(together)] if together else [])]]
        return min((self._improve(rules, budget) for rules in starts), key=lambda found: found.code)

    def _improve(self, rules: list[ListRule], budget: Budget) -> Expansion:
        while not budget.over:
            best = max(self.moves(rules, budget), key=lambda move: move.saving, default=None)
            if best is None or best.saving <= 0:
                break
            rules = [rule for rule in rules if rule not in best.removed] + list(best.added)
        return self.expansion(rules)

    def moves(self, rules: Sequence[ListRule], budget: Budget) -> Iterator[Move]:
        """Yield all changes of lists with what they save."""
        for name, removed, added in self._changes(rules):
            if budget.over:
                return
            new = [self.fit(rule) for rule in added]
            if all(one is not None for one in new):
                before, after = (sum(one.code for one in some if one) for some in (map(self.fit, removed), new))
                yield Move(name, removed, added, before - after)

    def _changes(self, rules: Sequence[ListRule]) -> Iterator[tuple[str, tuple[ListRule, ...], tuple[ListRule, ...]]]:
        for i, one in enumerate(rules):
            for other in rules[i + 1 :]:
                if not self.alone & {*one.classes, *other.classes}:
                    joined = ListRule(tuple(sorted(one.items + other.items)), max(one.leading, other.leading))
                    yield "join", (one, other), (joined,)
                    if len(one.items) == len(other.items) == 1 and (item := self._group(one.items[0], other.items[0])):
                        yield "group", (one, other), (ListRule((item,), max(one.leading, other.leading)),)
            if len(one.items) > 1:
                for item in one.items:
                    rest = tuple(each for each in one.items if each != item)
                    yield "split", (one,), (ListRule(rest, one.leading), ListRule((item,), one.leading))
            elif len(one.items[0]) > 1:
                yield "ungroup", (one,), tuple(ListRule((((c, 1),),), one.leading) for c, _ in one.items[0])
            if self.leading_allowed and one.leading < min(MAX_LEADING, int(self.place.rank.max())):
                yield "lead", (one,), (ListRule(one.items, one.leading + 1),)
            if one.leading:
                yield "unlead", (one,), (ListRule(one.items, one.leading - 1),)

    def _group(self, one: Item, other: Item) -> Item | None:
        """Return the item that holds two together, if each comes with the same number of the other everywhere."""
        (a, copies_a), (b, copies_b) = one[0], other[0]
        counts_a, counts_b = self.place.counts[:, a] // copies_a, self.place.counts[:, b] // copies_b
        total_a, total_b = int(counts_a.sum()), int(counts_b.sum())
        divisor = math.gcd(total_a, total_b)
        times_a, times_b = total_a // divisor, total_b // divisor
        if bool((counts_a == counts_a[0]).all()):  # what is always there explains nothing
            return None
        if not bool((counts_a * times_b == counts_b * times_a).all()):
            return None
        number = counts_a // times_a
        if not bool((number * times_a == counts_a).all()):
            return None
        return tuple(sorted([(c, k * times_a) for c, k in one] + [(c, k * times_b) for c, k in other]))
