"""Leftmost derivations: batches of rule numbers, and what follows from them without expanding symbol by symbol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
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


class Steps(NamedTuple):
    """Steps of derivations as trees. Entry 0 stands for no step, and entry i + 1 for step i.

    Attributes:
        rule: Rule of each step; the padding rule K at entry 0.
        producer: Entry of the step whose rule produced the non-terminal that is expanded; 0 for the start symbol, and
            where nothing is left.
        child: Which of the producer's ``GrammarTensors.push`` it is.
        remaining: Non-terminals that are left to expand before each step, and after the last; ``t + 1`` of them.
    """

    rule: Int[Tensor, "b s"]
    producer: Int[Tensor, "b s"]
    child: Int[Tensor, "b s"]
    remaining: Int[Tensor, "b s"]


def steps_of(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Steps:
    """Find for each step of derivations the step that produced its non-terminal.

    A rule's non-terminals take the place of the expanded one on a stack. What is expanded at depth d was produced by
    the last step before at depth d or less: every step writes from its own depth upwards.
    """
    tensors = grammar.tensors(rules.device)
    rule = F.pad(rules, (1, 0), value=grammar.num_rules)
    # the padding rule grows by 0, so that this is the number before step 0, before step 1, ..., after the last
    remaining = 1 + tensors.grow[rule].cumsum(1)
    # before each step, from 1, and 0 after the end (below it after that of an invalid one); entry 0 is below all
    depth = F.pad(remaining[:, :-1].clamp(min=0), (1, 0))
    producer = _last_not_deeper(depth).masked_fill(depth == 0, 0)
    child = (depth - depth.gather(1, producer)).clamp(0, tensors.push.shape[1] - 1)
    return Steps(rule, producer, child, remaining)


def _last_not_deeper(depth: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """Find the last entry before each at the same depth or less, by binary search; entry 0 has depth 0."""
    least, size = [F.pad(depth[:, :-1], (1, 0))], 1  # smallest depth of the last 1, 2, 4, ... before each entry
    while size < depth.shape[1]:
        least.append(torch.minimum(least[-1], F.pad(least[-1], (size, -size))))
        size *= 2
    end = torch.arange(depth.shape[1], device=depth.device).expand_as(depth)  # all from here to the entry are deeper
    for smallest in reversed(least):
        end = torch.where(smallest.gather(1, end) > depth, end - size, end)
        size //= 2
    return end - 1


def last_in_chain(following: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """Follow pointers to earlier entries until they point to themselves, doubling the distance in each round."""
    for _ in range(following.shape[1].bit_length()):
        following = following.gather(1, following)
    return following


def contexts(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Context:
    """Compute the context of each step of given derivations, tensors of shape `[b t]`."""
    return contexts_of(grammar, steps_of(grammar, rules))


def contexts_of(grammar: Grammar, steps: Steps) -> Context:
    """Compute the context of each step, tensors of shape `[b t]`."""
    tensors = grammar.tensors(steps.rule.device)
    entry = torch.arange(steps.rule.shape[1], device=steps.rule.device).expand_as(steps.rule)
    by = steps.rule.gather(1, steps.producer)
    symbol = tensors.push[by, steps.child]
    symbol[:, 1:2] = grammar.nonterminals.index(grammar.start)
    # a list's steps, each produced by the one before, lead back to its first; the number of them is the position
    repeats = tensors.repeats[by, steps.child]
    first, position = torch.where(repeats, steps.producer, entry), repeats.long()
    for _ in range(steps.rule.shape[1].bit_length()):
        position = position + position.gather(1, first)
        first = first.gather(1, first)
    above = steps.producer.gather(1, first)
    head = tensors.lhs[steps.rule]
    enclosing = last_in_chain(torch.where(tensors.lists[head], entry, above))
    columns = (symbol, head.gather(1, above), position, position.gather(1, enclosing.gather(1, above)))
    return Context(*(column[:, 1:] for column in columns))


def is_valid(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Return which rows are finished derivations of the grammar, padded after their end."""
    in_range = ((rules >= 0) & (rules <= grammar.num_rules)).all(1)
    steps = steps_of(grammar, rules.clamp(0, grammar.num_rules))
    # each rule expands the symbol in its place; of an invalid row, the steps up to the first wrong one are right
    fits = contexts_of(grammar, steps).symbol == grammar.tensors(rules.device).lhs[steps.rule[:, 1:]]
    return fits.all(1) & (steps.remaining[:, -1] == 0) & in_range


def lengths(grammar: Grammar, rules: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """Compute the number of steps of each derivation, without padding."""
    return (rules != grammar.num_rules).sum(1)


def pad(grammar: Grammar, derivations: Sequence[Sequence[int]]) -> Int[Tensor, "b t"]:
    """Pad rule sequences of any lengths to one tensor."""
    width = max(map(len, derivations), default=0)
    return torch.tensor(
        [[*row] + [grammar.num_rules] * (width - len(row)) for row in derivations], dtype=torch.long
    ).reshape(len(derivations), width)
