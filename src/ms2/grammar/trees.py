"""Derivation trees of single scenes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import EMPTY_STRING, GrammarError


@dataclass(eq=False, repr=False)
class DerivationTree:
    """A derivation tree: a symbol, the rule that expands it, and the trees of that rule's right-hand side.

    Attributes:
        symbol: The node's symbol.
        rule: Number of the rule that expanded it; None for a terminal.
        children: The symbols of the rule's right-hand side, in order.
    """

    symbol: str
    rule: int | None = None
    children: list["DerivationTree"] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the tree in bracket notation: ``(Scene bg (Digits ε))``."""
        words: list[str] = []
        stack: list[DerivationTree | str] = [self]
        while stack:
            node = stack.pop()
            if isinstance(node, str):
                words.append(node)
            elif node.rule is None:
                words.append(f" {node.symbol}")
            else:
                words.append(f" ({node.symbol}")
                stack.append(")" if node.children else f" {EMPTY_STRING})")
                stack += reversed(node.children)
        return "".join(words)[1:]

    def __repr__(self) -> str:
        return f"DerivationTree({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        """Return whether two trees have the same symbols and rules at the same places."""
        if not isinstance(other, DerivationTree):
            return NotImplemented
        pairs = zip_longest(self.nodes(), other.nodes())
        return all(a and b and a._content() == b._content() for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]  # trees can be changed

    def _content(self) -> tuple[str, int | None, int]:
        return self.symbol, self.rule, len(self.children)

    def nodes(self) -> "Iterator[DerivationTree]":
        """Yield this tree and all below it in pre-order, without recursion: trees can be deep."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack += reversed(node.children)

    def terminals(self) -> Iterator[str]:
        """Yield the symbols of the terminal string."""
        return (node.symbol for node in self.nodes() if node.rule is None)


def to_tree(grammar: Grammar, rules: Sequence[int]) -> DerivationTree:
    """Build the tree of one derivation, ignoring padding.

    Raises:
        GrammarError: If ``rules`` is no finished derivation, with the step at fault.
    """
    rules = [int(r) for r in rules if r != grammar.num_rules]
    root = DerivationTree(grammar.start)
    stack = [root]
    for step, number in enumerate(rules):
        if not stack:
            raise GrammarError(f"the derivation ends before step {step}, yet rule {number} follows")
        node = stack.pop()
        if number not in grammar.expansions[node.symbol]:
            raise GrammarError(f"step {step} must expand {node.symbol!r}, which rule {number} does not")
        node.rule = number
        node.children = [DerivationTree(symbol) for symbol in grammar.rules[number].rhs]
        stack += [c for c in reversed(node.children) if c.symbol in grammar.expansions]
    if stack:
        raise GrammarError(
            f"unfinished after {len(rules)} steps: {', '.join(n.symbol for n in reversed(stack))} remain"
        )
    return root


def from_tree(tree: DerivationTree) -> list[int]:
    """Return the leftmost derivation of a tree, the inverse of `to_tree`."""
    return [node.rule for node in tree.nodes() if node.rule is not None]
