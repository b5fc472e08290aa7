"""Unfinished derivations of a structure model, extended one rule at a time."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.grammar.stack import DerivationStack
from ms2.models.networks.base import SequenceNetwork, State

MAX_LEFT = 0.875
"""Fraction of a batch's derivations to be unfinished at which the finished ones leave it."""


@dataclass(frozen=True)
class StepTables:
    """What steps need of a structure model's weights, computed once for a whole batch of derivations.

    Attributes:
        network: The sequence network.
        inputs: Projected embeddings, first those of the previous rule, then those of each field of the `Context`.
        first_input: Row of each field's first embedding.
        head: Weights of the rules' logits; 0 for the padding rule.
        offsets: What is added to the logits, by symbol, and again by symbol for lists of the maximum length: biases;
            minus infinity for rules that are not allowed, and for the padding rule unless nothing is left to expand.
        max_lengths: Maximum length of each symbol's list; None if no list has one.
        is_fixed: Which symbols' logits are the offsets alone; None if there are none.
    """

    network: SequenceNetwork
    inputs: Float[Tensor, "v p"]
    first_input: Int[Tensor, " f"]
    head: Float[Tensor, "k1 h"]
    offsets: Float[Tensor, "n2 k1"]
    max_lengths: Int[Tensor, " n1"] | None
    is_fixed: Bool[Tensor, " n1"] | None


class DerivationState:
    """Network state and stack of symbols of n unfinished derivations.

    Made by `StructureModel.begin`. Each step is a call of `sample_rule` or `logits`, followed by `advance`. No shape
    depends on data, so that a GPU need not be waited for.

    Args:
        stack: What is left to expand in each derivation.
        state: The network's state.
        tables: What steps need of the weights.

    Attributes:
        padding: Number of the padding rule, which also precedes the first rule.
    """

    def __init__(self, stack: DerivationStack, state: State, tables: StepTables) -> None:
        self._stack, self._tables = stack, tables
        self._state = self._next_state = state
        self.padding = len(tables.head) - 1
        self._rule = torch.full_like(stack.depth, self.padding)

    def __getitem__(self, index: Int[Tensor, " m"]) -> "DerivationState":
        """Select some of the derivations, as a copy that is extended by itself."""
        some = copy.copy(self)
        some._stack, some._rule = self._stack[index], self._rule.index_select(0, index)
        some._state = tuple(part.index_select(0, index) for part in self._state)
        return some

    @property
    def finished(self) -> Bool[Tensor, " n"]:
        """Which derivations have nothing left to expand."""
        return self._stack.finished

    def logits(self) -> Float[Tensor, "n k1"]:
        """Compute the masked logits of each rule to come next; the padding rule where a derivation is finished."""
        tables, fields = self._tables, self._stack.fields
        index = torch.cat([self._rule[:, None], fields], 1)[:, : len(tables.first_input)] + tables.first_input
        projected = F.embedding_bag(index, tables.inputs, mode="sum")
        output, self._next_state = tables.network.step_projected(projected, self._state)
        symbol = row = fields[:, 0].contiguous()
        if tables.max_lengths is not None:
            is_full = fields[:, 2] >= tables.max_lengths.index_select(0, symbol)
            row = torch.where(is_full, row + len(tables.max_lengths), row)
        offsets = tables.offsets.index_select(0, row)
        logits = torch.addmm(offsets, output, tables.head.T)
        if tables.is_fixed is not None:
            logits = torch.where(tables.is_fixed.index_select(0, symbol)[:, None], offsets, logits)
        return logits

    def sample_rule(self, uniform: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Sample the next rule of each derivation; the padding rule where it is finished.

        Args:
            uniform: Random numbers, uniform in [0, 1), in double precision: rules can be very unlikely.
        """
        logits = self.logits()
        weights = (logits - logits.amax(1, keepdim=True)).exp()  # a softmax is slow for so few
        cumulative = weights.cumsum(1, dtype=torch.double)
        rule = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
        return rule[:, 0].clamp(max=self.padding)  # above it only where logits are not numbers

    def advance(self, rule: Int[Tensor, " n"]) -> None:
        """Extend each derivation by one rule, after `sample_rule` or `logits`."""
        self._state, self._rule = self._next_state, rule
        self._stack.expand(rule)


def extend_to_end(
    state: DerivationState, uniform: Float[Tensor, "t n"], leave: bool
) -> tuple[Int[Tensor, "n t"], Bool[Tensor, " n"]]:
    """Sample all rules of derivations that are begun; return them, and which derivations are finished.

    Args:
        state: The derivations.
        uniform: Uniform random numbers, one for each step of each.
        leave: Whether derivations that are finished leave the batch, which waits for the device. Without that, nothing
            depends on data but values.
    """
    rules = torch.full_like(uniform, state.padding, dtype=torch.long)
    finished = torch.ones_like(rules[0], dtype=torch.bool)
    left = torch.arange(rules.shape[1], device=rules.device)
    for row, u in zip(rules, uniform, strict=True):
        rule = state.sample_rule(u.index_select(0, left))
        state.advance(rule)
        row.index_copy_(0, left, rule)
        if leave:
            unfinished = (~state.finished).nonzero()[:, 0]
            if not len(unfinished):
                break
            if len(unfinished) <= MAX_LEFT * len(left):
                state, left = state[unfinished], left[unfinished]
    return rules.T, finished.index_copy(0, left, state.finished)
