"""What is left to expand in unfinished derivations: a stack per scene, with one integer for each non-terminal."""

import copy

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ms2.grammar.derivations import Context
from ms2.grammar.grammar import Grammar
from ms2.grammar.tensors import packed


class DerivationStack:
    """Non-terminals still to expand in each scene of a batch: one LIFO stack per scene.

    Each entry is a `Context`, packed into one integer. No shape depends on data, so that a GPU need not be waited for.

    Args:
        grammar: The grammar.
        batch_size: Number of scenes, b.
        t_max: Maximum number of steps.
        device: Device of the stacks.

    Attributes:
        depth: Number of non-terminals left in each scene.
        top: Packed `Context` of the non-terminal on top of each stack.
    """

    def __init__(self, grammar: Grammar, batch_size: int, t_max: int, device: torch.device | str = "cpu") -> None:
        tensors = grammar.tensors(device)
        self._children, width = tensors.children, tensors.push.shape[1]
        none = len(grammar.nonterminals)
        empty, start = packed(none, none), packed(grammar.nonterminals.index(grammar.start), none)
        # column 0 stays below the stack: its symbol N, which no rule expands, is the top of an empty stack
        height = int(min(grammar.tallest_stack, 1 + t_max * max(0, width - 1)))
        self._stack = torch.full((batch_size, 1 + height + width), empty, device=device)
        self.top: Int[Tensor, " b"] = torch.full((batch_size,), start, device=device)
        self.depth: Int[Tensor, " b"] = torch.ones(batch_size, dtype=torch.long, device=device)
        self._columns = torch.arange(width, device=device)
        self._shifts, self._masks = tensors.fields

    def __getitem__(self, index: Int[Tensor, " m"]) -> "DerivationStack":
        """Select some of the scenes, as a copy that is expanded by itself."""
        some = copy.copy(self)
        some._stack, some.top, some.depth = (x.index_select(0, index) for x in (self._stack, self.top, self.depth))
        return some

    @property
    def fields(self) -> Int[Tensor, "b 4"]:
        """Fields of the `Context` on top of each stack."""
        return (self.top[:, None] >> self._shifts) & self._masks

    @property
    def context(self) -> Context:
        """Context of the non-terminal on top of each stack."""
        return Context(*self.fields.unbind(1))

    @property
    def finished(self) -> Bool[Tensor, " b"]:
        """Which stacks are empty."""
        return self.depth == 0

    def expand(self, rule: Int[Tensor, " b"]) -> None:
        """Pop each stack's top and push the non-terminals of a rule."""
        grow, shift, mask, base = self._children.index_select(0, rule).split_with_sizes(
            [1, *3 * [len(self._columns)]], 1
        )
        # Unused columns hold N and land above the new top, where the next push overwrites them, or, for the padding
        # rule, on column 0, which holds N already.
        pushed = ((self.top[:, None] >> shift) & mask) + base
        self._stack.scatter_(1, self.depth[:, None] + self._columns, pushed)
        self.depth = self.depth + grow[:, 0]
        self.top = self._stack.gather(1, self.depth[:, None])[:, 0]
