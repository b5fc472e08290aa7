"""Unfinished derivations of a structure model, extended one rule at a time."""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.grammar.derivations import Context
from ms2.grammar.stack import DerivationStack
from ms2.models.networks.base import State

Step = Callable[[Int[Tensor, " n"], Context, State], tuple[Float[Tensor, "n k"], State]]
"""Maps the previous rules, the `Context` of each step and the network's state to masked logits and the next state."""


class DerivationState:
    """Network state and stack of symbols of n unfinished derivations.

    Made by `StructureModel.begin`. Each step is a call of `sample_rule` or `probabilities`, followed by `advance`.

    Args:
        stack: What is left to expand in each derivation.
        state: The network's state.
        step: Computes the logits of the next rules.
        padding: Number of the padding rule, which also precedes the first rule.
    """

    def __init__(self, stack: DerivationStack, state: State, step: Step, padding: int) -> None:
        self._stack, self._step, self._padding = stack, step, padding
        self._state = self._next_state = state
        self._rule = torch.full_like(stack.depth, padding)

    def __getitem__(self, index: Tensor) -> "DerivationState":
        """Select some of the derivations, as a copy that is extended by itself."""
        some = copy.copy(self)
        some._stack, some._rule = self._stack[index], self._rule[index]
        some._state = tuple(part[index] for part in self._state)
        return some

    @property
    def finished(self) -> Bool[Tensor, " n"]:
        """Which derivations have nothing left to expand."""
        return self._stack.finished

    def probabilities(self) -> Float[Tensor, "n k"]:
        """Compute the probability of each rule to come next; arbitrary where a derivation is finished."""
        logits, self._next_state = self._step(self._rule, self._stack.context, self._state)
        return torch.where(self.finished[:, None], 0.0, logits).softmax(-1)

    def sample_rule(self, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Sample the next rule of each derivation; the padding rule where it is finished."""
        rule = torch.multinomial(self.probabilities(), 1, generator=generator)[:, 0]
        return torch.where(self.finished, self._padding, rule)

    def advance(self, rule: Int[Tensor, " n"]) -> None:
        """Extend each derivation by one rule, after `probabilities` or `sample_rule`."""
        self._state, self._rule = self._next_state, rule
        self._stack.expand(rule)
