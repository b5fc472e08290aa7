"""Derivation trees of single scenes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import EMPTY_STRING, GrammarError


@dataclass
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
        if self.rule is None:
            return self.symbol
        return f"({self.symbol} {' '.join(map(str, self.children)) or EMPTY_STRING})"

    def terminals(self) -> Iterator[str]:
        """Yield the symbols of the terminal string."""
        if self.rule is None:
            yield self.symbol
        for child in self.children:
            yield from child.terminals()


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
        if number not in grammar.rules_of(node.symbol):
            raise GrammarError(f"step {step} must expand {node.symbol!r}, which rule {number} does not")
        node.rule = number
        node.children = [DerivationTree(symbol) for symbol in grammar.rules[number].rhs]
        stack += [c for c in reversed(node.children) if c.symbol in grammar.nonterminals]
    if stack:
        raise GrammarError(
            f"unfinished after {len(rules)} steps: {', '.join(n.symbol for n in reversed(stack))} remain"
        )
    return root


def from_tree(tree: DerivationTree) -> list[int]:
    """Return the leftmost derivation of a tree, the inverse of `to_tree`."""
    rules, stack = [], [tree]
    while stack:
        node = stack.pop()
        if node.rule is not None:
            rules.append(node.rule)
        stack += reversed(node.children)
    return rules
