"""Leftmost derivations: batched expansion with a LIFO stack per scene."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ms2.grammar.grammar import Grammar


@dataclass(frozen=True)
class Derivations:
    """A batch of finished derivations.

    Attributes:
        rules: Rule numbers step by step; after the end, the grammar's padding rule K.
        rejections: Rejected samples before each derivation, r_reject of section 3.3.
    """

    rules: Int[Tensor, "b t"]
    rejections: Int[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.rules)


class Context(NamedTuple):
    """Position in a derivation at which a non-terminal is expanded.

    Attributes:
        symbol: Number of the non-terminal; N where nothing is left to expand.
        parent: Number of the nearest other non-terminal above it: ``Road`` for every step of a road's ``Cars``; N for
            the start.
        position: How many times in a row it was produced by its own rules: the number of items so far of a list such
            as ``Cars -> car Cars | ε``.
        item: Index of the item of the nearest enclosing list: 1 for the cars of the second road; 0 outside of lists.
    """

    symbol: Int[Tensor, "*b"]
    parent: Int[Tensor, "*b"]
    position: Int[Tensor, "*b"]
    item: Int[Tensor, "*b"]


class DerivationStack:
    """Non-terminals still to expand in each scene of a batch: one LIFO stack per scene.

    Beside each non-terminal the stack holds its `Context`, and a *parent object*: an index that the caller of `expand`
    may pass from a rule to the non-terminals of its right-hand side.

    Args:
        grammar: The grammar.
        batch_size: Number of scenes, b.
        t_max: Maximum number of steps.
        device: Device of the stacks.
    """

    def __init__(self, grammar: Grammar, batch_size: int, t_max: int, device: torch.device | str = "cpu") -> None:
        self.tensors = grammar.tensors(device)
        width = self.tensors.push.shape[1]
        self._offsets = torch.arange(width, device=device)
        # column 0 stays below the stack: its symbol N, which no rule expands, is the top of an empty stack
        size = 2 + t_max * max(1, width - 1) + width
        self._stack = torch.full((batch_size, size, 5), -1, device=device)
        none = len(grammar.nonterminals)
        self._stack[:, 0] = torch.tensor([none, none, 0, 0, -1], device=device)
        self._stack[:, 1] = torch.tensor([grammar.nonterminals.index(grammar.start), none, 0, 0, -1], device=device)
        self.depth: Int[Tensor, " b"] = torch.ones(batch_size, dtype=torch.long, device=device)

    def __getitem__(self, index: Tensor) -> "DerivationStack":
        """Select some of the scenes, as a copy that is expanded by itself."""
        some = copy.copy(self)
        some._stack, some.depth = self._stack[index], self.depth[index]
        return some

    @property
    def top(self) -> Context:
        """Context of the non-terminal on top of each stack."""
        return Context(*self._top().unbind(-1)[:-1])

    @property
    def parent_object(self) -> Int[Tensor, " b"]:
        """Parent object of the non-terminal on top of each stack; -1 for none."""
        return self._top()[:, -1]

    def _top(self) -> Int[Tensor, "b 5"]:
        return self._stack.gather(1, self.depth[:, None, None].expand(-1, 1, 5))[:, 0]

    @property
    def finished(self) -> Bool[Tensor, " b"]:
        """Which stacks are empty."""
        return self.depth == 0

    def expand(self, rule: Int[Tensor, " b"], parent_object: Int[Tensor, " b"] | None = None) -> None:
        """Pop each stack's top and push the non-terminals of a rule.

        Args:
            rule: Number of the rule that expands each top.
            parent_object: Parent object of the pushed non-terminals; by default that of the popped one.
        """
        symbol, parent, position, item, inherited = self._top()[:, :, None].unbind(1)
        push, repeats = self.tensors.push[rule], self.tensors.repeats[rule]
        parents = torch.where(repeats, parent, symbol)
        positions = torch.where(repeats, position + 1, 0)
        items = torch.where(~repeats & self.tensors.lists[symbol], position, item)
        objects = (inherited if parent_object is None else parent_object[:, None]).expand_as(push)
        # Unused columns of `push` hold N and land above the new top, where the next push overwrites them, or,
        # for the padding rule, on column 0, which holds N already.
        columns = (self.depth[:, None] + self._offsets)[..., None].expand(-1, -1, 5)
        self._stack.scatter_(1, columns, torch.stack([push, parents, positions, items, objects], -1))
        self.depth = self.depth + self.tensors.grow[rule]


def is_valid(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Return which rows are finished derivations of the grammar, padded after their end."""
    stack = DerivationStack(grammar, len(rules), rules.shape[1], rules.device)
    allowed = torch.cat([stack.tensors.allowed, torch.zeros_like(stack.tensors.allowed[:, :1])], 1)
    allowed[-1, -1] = True  # an empty stack allows only the padding rule
    valid = torch.ones(len(rules), dtype=torch.bool, device=rules.device)
    for rule in rules.unbind(1):
        rule = rule.clamp(0, grammar.num_rules)
        valid &= allowed[stack.top.symbol, rule]
        stack.expand(torch.where(valid, rule, grammar.num_rules))
    in_range = ((rules >= 0) & (rules <= grammar.num_rules)).all(1)
    return valid & stack.finished & in_range


def contexts(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Context:
    """Compute the context of each step of given derivations, tensors of shape `[b t]`."""
    stack = DerivationStack(grammar, len(rules), rules.shape[1], rules.device)
    tops = []
    for rule in rules.unbind(1):
        tops.append(stack.top)
        stack.expand(rule)
    return Context(*(torch.stack(column, 1) for column in zip(*tops, strict=True)))


def lengths(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """Compute the number of steps of each derivation, without padding."""
    return (rules != grammar.num_rules).sum(1)


def pad(grammar: Grammar, derivations: Sequence[Sequence[int]]) -> Int[Tensor, "b t"]:
    """Pad rule sequences of any lengths to one tensor."""
    width = max(map(len, derivations), default=0)
    return torch.tensor(
        [[*row] + [grammar.num_rules] * (width - len(row)) for row in derivations], dtype=torch.long
    ).reshape(len(derivations), width)
