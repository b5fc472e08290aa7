"""Credit assignment: weight each step of a derivation by the scores of the feature blocks that depend on it."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.grammar.grammar import Grammar

BlockSet = frozenset[str] | None
"""Feature blocks whose scores are summed; None for all of them."""


class CreditAssignment:
    """Groups symbols by the feature blocks that depend on their expansions.

    The steps that expand a symbol are weighed by the blocks that name it and by the blocks that name no symbol; steps
    of symbols that no block names are weighed by all blocks.

    Args:
        symbols: Non-terminals by feature block.
    """

    def __init__(self, symbols: Mapping[str, Sequence[str]]) -> None:
        self.symbols = {block: list(some) for block, some in symbols.items()}
        named = [symbol for some in self.symbols.values() for symbol in some]
        self.block_sets: list[BlockSet] = list(dict.fromkeys([None, *map(self.blocks_of, named)]))
        """Every set of blocks that a symbol may have, each once."""
        self._groups: dict[tuple[Grammar, torch.device], tuple[Int[Tensor, " n1"], list[BlockSet]]] = {}

    def __bool__(self) -> bool:
        return bool(self.symbols)

    def blocks_of(self, symbol: str) -> BlockSet:
        """Return the blocks that a symbol is assigned to; None if there are none."""
        return frozenset(block for block, symbols in self.symbols.items() if symbol in symbols) or None

    def groups(self, grammar: Grammar, device: torch.device | str = "cpu") -> tuple[Int[Tensor, " n1"], list[BlockSet]]:
        """Number the groups of symbols with equal blocks, once per grammar and device.

        Returns:
            The group of each non-terminal, with a last entry for the empty stack; and the blocks of each group.

        Raises:
            UserError: If a symbol is named that the grammar does not expand.
        """
        key = grammar, torch.device(device)
        if key not in self._groups:
            self._check(grammar)
            of_symbol = [self.blocks_of(symbol) for symbol in grammar.nonterminals]
            sets = list(dict.fromkeys(of_symbol))
            self._groups[key] = torch.tensor([*map(sets.index, of_symbol), 0], device=device), sets
        return self._groups[key]

    def _check(self, grammar: Grammar) -> None:
        for block, symbols in self.symbols.items():
            for symbol in symbols:
                if symbol not in grammar.nonterminals:
                    raise UserError(
                        f"credit_assignment gives {symbol!r} the score of {block!r}, but the grammar expands no such "
                        f"symbol. {suggest(symbol, grammar.nonterminals)}"
                    )

    def scores(self, scores: Mapping[str, Tensor], blocks: BlockSet) -> Tensor:
        """Sum the scores of a set of blocks, and of blocks that no symbol is assigned to.

        Raises:
            UserError: If a block is named that is not scored.
        """
        for block in self.symbols:
            if block not in scores:
                raise UserError(
                    f"credit_assignment names the block {block!r}, which is not scored. {suggest(block, scores)}"
                )
        return torch.stack(
            [s for name, s in scores.items() if blocks is None or name in blocks or name not in self.symbols]
        ).sum(0)
