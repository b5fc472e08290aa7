"""Fewest steps in which an unfinished derivation can end with, or without, meeting conditions."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.grammar.grammar import Grammar
from ms2.models.conditional.condition import Condition, emitted_counts

MAX_JOINT_COUNTS = 512
"""Largest number of combinations of counts in one `Reachability`; conditions with more are divided among several."""

Entry = tuple[str, int]
"""A non-terminal with its position in its list, if the length of that list is bounded; else with 0."""


class ReachabilityState(NamedTuple):
    """Reachability of b unfinished derivations.

    Attributes:
        state: Index of the stack, and joint count; ``[b g 2]`` for g groups of conditions.
        good: Fewest further steps to an end that meets the conditions; infinite if there is none.
        bad: Fewest further steps to an end that does not.
    """

    state: Int[Tensor, "b *n"]
    good: Float[Tensor, " b"]
    bad: Float[Tensor, " b"]


class Reachability:
    """Fewest remaining steps to an end that meets the conditions, and to one that does not.

    For each non-terminal, a fixed point over the grammar gives the fewest steps in which it derives each number of
    objects. Those of a whole stack are the min-plus convolution of these. Both are exact, also where conditions compete
    for the steps that ``t_max`` allows.

    Numbers of objects are kept as a *joint count*: one integer for the counts of all conditions together, each of which
    saturates where more objects make no difference to the conditions. Stacks get indices as they occur: each is
    another stack and the entry on top of it.

    Args:
        grammar: The grammar.
        conditions: Conditions on the finished derivation.
        t_max: Maximum number of steps of a derivation.
        max_lengths: Maximum length of each non-terminal's list, in the order of the non-terminals.
        device: Device of the derivations.

    Attributes:
        fewest: Fewest steps in which each entry derives each joint count.
    """

    def __init__(
        self,
        grammar: Grammar,
        conditions: Sequence[Condition],
        t_max: int,
        max_lengths: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self._grammar, self._t_max = grammar, t_max
        # no derivation reaches a position beyond t_max, so that such a bound, and positions, don't matter
        self._max_lengths = {s: m for s, m in zip(grammar.nonterminals, max_lengths, strict=False) if m < t_max}
        counted = list(dict.fromkeys(condition.classes for condition in conditions))
        emitted = torch.stack([emitted_counts(grammar, classes) for classes in counted], 1)
        saturation = torch.tensor(
            [
                min(largest, max(c.saturation_count for c in conditions if c.classes == classes))
                for classes, largest in zip(counted, (emitted.amax(0) * t_max).tolist(), strict=True)
            ]
        )
        ranges = (torch.arange(limit + 1) for limit in saturation.tolist())
        counts = torch.cartesian_prod(*ranges).reshape(-1, len(saturation))
        strides = (saturation + 1).flip(0).cumprod(0).flip(0) // (saturation + 1)
        # table of sums of joint counts, and the joint count that each rule emits
        self._plus = (torch.minimum(counts[:, None] + counts, saturation) * strides).sum(-1).to(device)
        self._emits = (torch.minimum(emitted, saturation) * strides).sum(-1).to(device)
        good = torch.stack([c.is_met(counts[:, counted.index(c.classes)]) for c in conditions]).all(0)
        ends = torch.stack([good, ~good]).to(device)
        self.fewest = self._fixed_point()
        # stack number 0 is the empty one; steps to a good and to a bad end, by stack and joint count
        self._remaining = [torch.zeros(ends.shape, device=device).masked_fill(~ends, math.inf)]
        self._stacks: list[tuple[int, Entry]] = [(0, ("", 0))]
        self._numbers: dict[tuple[int, Entry], int] = {}
        self._next_stacks: dict[tuple[int, int], int] = {}
        self._start = self._pushed(0, (grammar.start, 0))

    def initial_state(self, n: int) -> ReachabilityState:
        """Return the state of n empty derivations."""
        state = torch.tensor([self._start, 0], device=self._plus.device).expand(n, 2)
        good, bad = self._remaining[self._start][:, 0, None].expand(2, n)
        return ReachabilityState(state, good, bad)

    def advance(self, state: Int[Tensor, "b 2"], rule: Int[Tensor, " b"]) -> ReachabilityState:
        """Compute the state after one more rule; the padding rule leaves it unchanged."""
        stack, count = state.unbind(1)
        width = self._grammar.num_rules + 1
        codes, inverse = (stack * width + rule).unique(return_inverse=True)
        stacks = [self._next_stack(*divmod(code, width)) for code in codes.tolist()]
        count = self._plus[count, self._emits[rule]]
        remaining = torch.stack([self._remaining[number] for number in stacks])[inverse, :, count]
        return ReachabilityState(torch.stack([codes.new_tensor(stacks)[inverse], count], 1), *remaining.unbind(1))

    def _next_stack(self, stack: int, rule: int) -> int:
        """Return the index of the stack after a rule."""
        if rule == self._grammar.num_rules:
            return stack
        if (stack, rule) not in self._next_stacks:
            below, top = self._stacks[stack]
            self._next_stacks[stack, rule] = reduce(self._pushed, reversed(self._children(top, rule)), below)
        return self._next_stacks[stack, rule]

    def _pushed(self, below: int, entry: Entry) -> int:
        """Return the index of the stack that has ``entry`` on top of the stack ``below``."""
        if (below, entry) not in self._numbers:
            self._numbers[below, entry] = len(self._stacks)
            self._stacks.append((below, entry))
            self._remaining.append((self._remaining[below][:, self._plus] + self.fewest[entry]).amin(-1))
        return self._numbers[below, entry]

    def _children(self, entry: Entry, rule: int) -> list[Entry]:
        """Return the non-terminals of a rule's right-hand side as entries."""
        symbol, position = entry
        return [
            (s, position + 1 if s == symbol and s in self._max_lengths else 0)
            for s in self._grammar.rules[rule].rhs
            if s in self._grammar.nonterminals
        ]

    def _fixed_point(self) -> dict[Entry, Float[Tensor, " s"]]:
        """Compute the fewest steps in which each entry derives each joint count; infinite where more than t_max."""
        none = torch.full((len(self._plus),), math.inf, device=self._plus.device)
        rules: dict[Entry, list[int]] = {}
        # in reverse order fewer rounds are needed: symbols often use symbols that are declared after them
        for symbol in reversed(self._grammar.nonterminals):
            max_length = self._max_lengths.get(symbol, 0)
            for position in reversed(range(max_length + 1)):
                full = symbol in self._max_lengths and position == max_length
                rules[symbol, position] = [
                    k for k in self._grammar.rules_of(symbol) if not (full and symbol in self._grammar.rules[k].rhs)
                ]
        fewest = dict.fromkeys(rules, none)
        changed = True
        while changed:
            changed = False
            for entry, numbers in rules.items():
                while True:  # each round adds one item to an unbounded list
                    by_rule = [self._fewest_with(entry, rule, fewest) for rule in numbers]
                    new = reduce(torch.minimum, by_rule, none)
                    if new.equal(fewest[entry]):
                        break
                    fewest[entry], changed = new, True
        return fewest

    def _fewest_with(self, entry: Entry, rule: int, fewest: dict[Entry, Float[Tensor, " s"]]) -> Float[Tensor, " s"]:
        """Compute the fewest steps in which an entry derives each joint count if ``rule`` expands it."""
        total = torch.full((len(self._plus),), math.inf, device=self._plus.device)
        total[self._emits[rule]] = 1.0
        for child in self._children(entry, rule):
            a, b = total.isfinite().nonzero()[:, 0], fewest[child].isfinite().nonzero()[:, 0]
            steps, counts = total[a][:, None] + fewest[child][b], self._plus[a][:, b]
            total = torch.full_like(total, math.inf).scatter_reduce(0, counts.flatten(), steps.flatten(), "amin")
        return total.masked_fill(total > self._t_max, math.inf)


def build_reachability(
    grammar: Grammar,
    conditions: Sequence[Condition],
    t_max: int,
    max_lengths: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[Reachability]:
    """Build a `Reachability` for each of several small groups of conditions; see `MAX_JOINT_COUNTS`.

    With more than one group, combinations that only conditions of different groups exclude are found as a derivation
    proceeds.
    """
    by_classes: dict[tuple[str, ...], list[Condition]] = {}
    for condition in conditions:
        by_classes.setdefault(condition.classes, []).append(condition)
    groups: list[list[Condition]] = []
    size = math.inf
    for same in by_classes.values():
        own = 1 + max(condition.saturation_count for condition in same)
        size *= own
        if size > MAX_JOINT_COUNTS:
            groups.append([])
            size = own
        groups[-1] += same
    return [Reachability(grammar, group, t_max, max_lengths, device) for group in groups]


def possible_counts(grammar: Grammar, classes: Sequence[str], t_max: int, max_lengths: Sequence[int]) -> list[int]:
    """Return every count of objects of given classes that a scene can have."""
    largest = int(emitted_counts(grammar, classes).max()) * t_max
    reachability = Reachability(grammar, [Condition(tuple(classes), ">=", largest)], t_max, max_lengths)
    return reachability.fewest[grammar.start, 0].isfinite().nonzero()[:, 0].tolist()
