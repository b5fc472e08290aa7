"""Leftmost derivations: the batched LIFO stack that expands them, and their tree for people."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ms2.grammar.grammar import Grammar, Tables


@dataclass(frozen=True)
class Derivations:
    """A batch of finished derivations.

    Attributes:
        rules: Rule numbers step by step; after the end, the grammar's padding rule K.
        rejections: Failed tries before each derivation ended in time, r_reject of section 3.3.
    """

    rules: Int[Tensor, "b t"]
    rejections: Int[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.rules)


class Context(NamedTuple):
    """Where in a derivation a non-terminal is expanded.

    Attributes:
        symbol: Number of the non-terminal; N where nothing is left to expand.
        parent: Number of the non-terminal whose rule brought it in, its own aside: ``Road`` for every step of a
            road's ``Cars``. N for the start.
        position: How often in a row it has come back through its own rules: how many items the list has so far that it
            spells, as in ``Cars -> car Cars | ε``.
        item: Index of the nearest list's item that it is part of; for the cars of the second road, 1. Zero outside
            of lists.
    """

    symbol: Int[Tensor, "*b"]
    parent: Int[Tensor, "*b"]
    position: Int[Tensor, "*b"]
    item: Int[Tensor, "*b"]


class DerivationStack:
    """What remains to be expanded in each scene of a batch: one LIFO stack of non-terminals per scene.

    Beside each non-terminal the stack holds its `Context`, and an *owner* that the caller may hand down from parents
    to children.

    Args:
        grammar: The grammar.
        batch: Number of scenes, b.
        t_max: Most steps that will be taken.
        device: Where the stacks live.
    """

    def __init__(self, grammar: Grammar, batch: int, t_max: int, device: torch.device | str = "cpu") -> None:
        self.tables: Tables = grammar.tables(device)
        width = self.tables.push.shape[1]
        self._offsets = torch.arange(width, device=device)
        # column 0 is the floor: an empty stack shows the symbol N, which no rule expands
        size = 2 + t_max * max(1, width - 1) + width
        self._stack = torch.full((batch, size, 5), -1, device=device)
        none = len(grammar.nonterminals)
        self._stack[:, 0] = torch.tensor([none, none, 0, 0, -1], device=device)
        self._stack[:, 1] = torch.tensor([grammar.nonterminals.index(grammar.start), none, 0, 0, -1], device=device)
        self.depth: Int[Tensor, " b"] = torch.ones(batch, dtype=torch.long, device=device)

    def __getitem__(self, index: Tensor) -> "DerivationStack":
        """Some of the scenes, to be expanded by themselves."""
        some = copy.copy(self)
        some._stack, some.depth = self._stack[index], self.depth[index]
        return some

    @property
    def top(self) -> Context:
        """What is to be expanded next."""
        return Context(*self._top().unbind(-1)[:-1])

    @property
    def owner(self) -> Int[Tensor, " b"]:
        """The owner of what is to be expanded next."""
        return self._top()[:, -1]

    def _top(self) -> Int[Tensor, "b 5"]:
        return self._stack.gather(1, self.depth[:, None, None].expand(-1, 1, 5))[:, 0]

    @property
    def finished(self) -> Bool[Tensor, " b"]:
        """Scenes whose stack is empty."""
        return self.depth == 0

    def expand(self, rule: Int[Tensor, " b"], owner: Int[Tensor, " b"] | None = None) -> None:
        """Pop each scene's top and push the non-terminals of ``rule``, which come to belong to ``owner``."""
        symbol, parent, position, item, inherited = self._top()[:, :, None].unbind(1)
        push, again = self.tables.push[rule], self.tables.repeats[rule]
        parents = torch.where(again, parent, symbol)
        positions = torch.where(again, position + 1, 0)
        items = torch.where(~again & self.tables.lists[symbol], position, item)
        owners = (inherited if owner is None else owner[:, None]).expand_as(push)
        # Unused places of `push` hold N and land above the new top, where the next push overwrites them, or,
        # for the padding rule, on the floor, which holds N already.
        columns = (self.depth[:, None] + self._offsets)[..., None].expand(-1, -1, 5)
        self._stack.scatter_(1, columns, torch.stack([push, parents, positions, items, owners], -1))
        self.depth = self.depth + self.tables.grow[rule]


def valid(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Which rows are finished derivations of the grammar, padded after their end."""
    frontier = DerivationStack(grammar, len(rules), rules.shape[1], rules.device)
    allowed = torch.cat([frontier.tables.allowed, torch.zeros_like(frontier.tables.allowed[:, :1])], 1)
    allowed[-1, -1] = True  # an empty stack allows only the padding rule
    good = torch.ones(len(rules), dtype=torch.bool, device=rules.device)
    for rule in rules.unbind(1):
        rule = rule.clamp(0, grammar.num_rules)
        good &= allowed[frontier.top.symbol, rule]
        frontier.expand(torch.where(good, rule, grammar.num_rules))
    in_range = ((rules >= 0) & (rules <= grammar.num_rules)).all(1)
    return good & frontier.finished & in_range


def contexts(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Context:
    """What is expanded at each step of given derivations, `[b t]` each."""
    frontier = DerivationStack(grammar, len(rules), rules.shape[1], rules.device)
    tops = []
    for rule in rules.unbind(1):
        tops.append(frontier.top)
        frontier.expand(rule)
    return Context(*(torch.stack(column, 1) for column in zip(*tops, strict=True)))


def lengths(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """Steps of each derivation, padding not counted."""
    return (rules != grammar.num_rules).sum(1)


def pad(grammar: Grammar, derivations: Sequence[Sequence[int]]) -> Int[Tensor, "b t"]:
    """Rule sequences of any lengths as one tensor."""
    width = max(map(len, derivations), default=0)
    return torch.tensor(
        [[*row] + [grammar.num_rules] * (width - len(row)) for row in derivations], dtype=torch.long
    ).reshape(len(derivations), width)
