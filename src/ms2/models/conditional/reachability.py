"""What can still become of a derivation under way: its nearest ends that meet conditions, and that don't."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.grammar.grammar import Grammar
from ms2.models.conditional.condition import Condition, emitted

JOINT = 512
"""Most combinations of counts that an `Outlook` tells apart; conditions with more are divided among several."""

Entry = tuple[str, int]
"""A non-terminal with its position in its list, as far as that matters."""


class Ahead(NamedTuple):
    """What lies ahead of derivations under way.

    Attributes:
        state: Where they are, as outlooks note it: number of the stack, and tally; ``[b g 2]`` for g of them.
        good: Fewest further steps to an end that meets the conditions; infinite if there is none.
        bad: Fewest further steps to an end that doesn't.
    """

    state: Int[Tensor, "b *n"]
    good: Float[Tensor, " b"]
    bad: Float[Tensor, " b"]


class Outlook:
    """How far derivations under way are from ends that meet the conditions, and from ends that don't.

    For each non-terminal, a fixed point over the grammar gives the fewest steps in which it makes each number of
    objects. Numbers of what waits on the stack are the min-plus convolution of these. Both are exact, also where
    conditions compete for the steps that ``t_max`` allows.

    Numbers of objects are kept as a *tally*: one integer for all counters together, each of which stays where it is
    when more makes no difference to the conditions. Stacks are numbered as they come: each is another one and what
    lies on top of it.

    Args:
        grammar: The grammar.
        conditions: What has to hold at the end.
        t_max: Most steps of a derivation.
        longest: Most items of the list that each non-terminal spells, in their order.
        device: Where derivations live.

    Attributes:
        fewest: Fewest steps in which each non-terminal, in each position of its list, makes each tally.
    """

    def __init__(
        self,
        grammar: Grammar,
        conditions: Sequence[Condition],
        t_max: int,
        longest: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self._grammar, self._t_max = grammar, t_max
        # a position beyond t_max is never reached, hence such a bound is none, and positions don't matter
        self._longest = {s: m for s, m in zip(grammar.nonterminals, longest, strict=False) if m < t_max}
        counted = list(dict.fromkeys(condition.classes for condition in conditions))
        makes = torch.stack([emitted(grammar, classes) for classes in counted], 1)
        limits = torch.tensor(
            [
                min(most, max(condition.limit for condition in conditions if condition.classes == classes))
                for classes, most in zip(counted, (makes.amax(0) * t_max).tolist(), strict=True)
            ]
        )
        counts = torch.cartesian_prod(*(torch.arange(limit + 1) for limit in limits.tolist())).reshape(-1, len(limits))
        strides = (limits + 1).flip(0).cumprod(0).flip(0) // (limits + 1)
        self._plus = (torch.minimum(counts[:, None] + counts, limits) * strides).sum(-1).to(device)
        self._makes = (torch.minimum(makes, limits) * strides).sum(-1).to(device)
        good = torch.stack([c.holds(counts[:, counted.index(c.classes)]) for c in conditions]).all(0)
        ends = torch.stack([good, ~good]).to(device)
        self.fewest = self._fixed_point()
        # stack number 0 is the empty one
        self._ahead = [torch.zeros(ends.shape, device=device).masked_fill(~ends, math.inf)]
        self._stacks: list[tuple[int, Entry]] = [(0, ("", 0))]
        self._numbers: dict[tuple[int, Entry], int] = {}
        self._followers: dict[tuple[int, int], int] = {}
        self._start = self._pushed(0, (grammar.start, 0))

    def start(self, n: int) -> Ahead:
        """What lies ahead of n derivations that begin."""
        state = torch.tensor([self._start, 0], device=self._plus.device).expand(n, 2)
        good, bad = self._ahead[self._start][:, 0, None].expand(2, n)
        return Ahead(state, good, bad)

    def after(self, state: Int[Tensor, "b 2"], rule: Int[Tensor, " b"]) -> Ahead:
        """What lies ahead after one rule more; padding changes nothing."""
        stack, tally = state.unbind(1)
        width = self._grammar.num_rules + 1
        codes, inverse = (stack * width + rule).unique(return_inverse=True)
        stacks = [self._following(*divmod(code, width)) for code in codes.tolist()]
        tally = self._plus[tally, self._makes[rule]]
        ahead = torch.stack([self._ahead[number] for number in stacks])[inverse, :, tally]
        return Ahead(torch.stack([codes.new_tensor(stacks)[inverse], tally], 1), *ahead.unbind(1))

    def _following(self, stack: int, rule: int) -> int:
        """Number of the stack that a rule leaves."""
        if rule == self._grammar.num_rules:
            return stack
        if (stack, rule) not in self._followers:
            below, top = self._stacks[stack]
            self._followers[stack, rule] = reduce(self._pushed, reversed(self._children(top, rule)), below)
        return self._followers[stack, rule]

    def _pushed(self, below: int, entry: Entry) -> int:
        """Number of the stack with ``entry`` on top of another."""
        if (below, entry) not in self._numbers:
            self._numbers[below, entry] = len(self._stacks)
            self._stacks.append((below, entry))
            self._ahead.append((self._ahead[below][:, self._plus] + self.fewest[entry]).amin(-1))
        return self._numbers[below, entry]

    def _children(self, entry: Entry, rule: int) -> list[Entry]:
        """The non-terminals of a rule's right-hand side."""
        symbol, position = entry
        return [
            (s, position + 1 if s == symbol and s in self._longest else 0)
            for s in self._grammar.rules[rule].rhs
            if s in self._grammar.nonterminals
        ]

    def _fixed_point(self) -> dict[Entry, Float[Tensor, " s"]]:
        """Fewest steps in which each non-terminal makes each tally; infinite where ``t_max`` steps don't suffice."""
        none = torch.full((len(self._plus),), math.inf, device=self._plus.device)
        rules: dict[Entry, list[int]] = {}
        for symbol in reversed(self._grammar.nonterminals):  # what others are made of often comes after them
            most = self._longest.get(symbol, 0)
            for position in reversed(range(most + 1)):
                full = symbol in self._longest and position == most
                rules[symbol, position] = [
                    k for k in self._grammar.rules_of(symbol) if not (full and symbol in self._grammar.rules[k].rhs)
                ]
        fewest = dict.fromkeys(rules, none)
        changed = True
        while changed:
            changed = False
            for entry, numbers in rules.items():
                while True:  # an unbounded list makes one item more each time
                    ways = [self._ways(entry, rule, fewest) for rule in numbers]
                    new = reduce(torch.minimum, ways, none)
                    if new.equal(fewest[entry]):
                        break
                    fewest[entry], changed = new, True
        return fewest

    def _ways(self, entry: Entry, rule: int, fewest: dict[Entry, Float[Tensor, " s"]]) -> Float[Tensor, " s"]:
        """Fewest steps to each tally that begin with a rule."""
        total = torch.full((len(self._plus),), math.inf, device=self._plus.device)
        total[self._makes[rule]] = 1.0
        for child in self._children(entry, rule):
            a, b = total.isfinite().nonzero()[:, 0], fewest[child].isfinite().nonzero()[:, 0]
            sums, tallies = total[a][:, None] + fewest[child][b], self._plus[a][:, b]
            total = torch.full_like(total, math.inf).scatter_reduce(0, tallies.flatten(), sums.flatten(), "amin")
        return total.masked_fill(total > self._t_max, math.inf)


def outlooks(
    grammar: Grammar,
    conditions: Sequence[Condition],
    t_max: int,
    longest: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[Outlook]:
    """Outlooks that share the conditions such that none has to tell too many counts apart.

    Where there is more than one, what conditions of different ones exclude together shows only as a derivation goes
    on.
    """
    by_classes: dict[tuple[str, ...], list[Condition]] = {}
    for condition in conditions:
        by_classes.setdefault(condition.classes, []).append(condition)
    groups: list[list[Condition]] = []
    size = math.inf
    for same in by_classes.values():
        own = 1 + max(condition.limit for condition in same)
        size *= own
        if size > JOINT:
            groups.append([])
            size = own
        groups[-1] += same
    return [Outlook(grammar, group, t_max, longest, device) for group in groups]


def possible_counts(grammar: Grammar, classes: Sequence[str], t_max: int, longest: Sequence[int]) -> list[int]:
    """Every number of objects of some classes that a scene can have."""
    most = int(emitted(grammar, classes).max()) * t_max
    outlook = Outlook(grammar, [Condition(tuple(classes), ">=", most)], t_max, longest)
    return outlook.fewest[grammar.start, 0].isfinite().nonzero()[:, 0].tolist()
