"""Scene graphs of single scenes, and conversion from and to derivations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError
from ms2.grammar.trees import to_tree


@dataclass
class SceneGraph:
    """A scene graph: an object with its ordered children.

    The root is the scene itself, with the grammar's start symbol.
    """

    symbol: str
    children: list["SceneGraph"] = field(default_factory=list)

    def __str__(self) -> str:
        return self._lines("")

    def _lines(self, indent: str) -> str:
        return "\n".join([indent + self.symbol, *(c._lines(indent + "  ") for c in self.children)])


def scene_graph(grammar: Grammar, rules: Sequence[int]) -> SceneGraph:
    """Build the scene graph of one derivation.

    Raises:
        GrammarError: If ``rules`` is not a complete derivation.
    """
    root = SceneGraph(grammar.start)
    stack = [(to_tree(grammar, rules), root)]
    while stack:
        node, above = stack.pop()
        if node.symbol in grammar.classes:
            above.children.append(SceneGraph(node.symbol))
            above = above.children[-1]
        stack += [(child, above) for child in reversed(node.children)]
    return root


def derivation_from_graph(grammar: Grammar, graph: SceneGraph) -> list[int]:
    """Find the shortest derivation with a given scene graph: the inverse of `scene_graph`.

    The inverse is unique if different derivations have different scene graphs, not for an ambiguous grammar.

    Raises:
        GrammarError: If the grammar has no derivation with this scene graph.
    """
    found = _Chart(grammar, graph.children).derivations_covering(grammar.start, 0)
    if len(graph.children) not in found:
        raise GrammarError(f"the grammar derives no scene\n{graph}")
    rules: list[int] = []
    stack = [found[len(graph.children)]]
    while stack:
        part = stack.pop()
        if part.rule is not None:
            rules.append(part.rule)
        stack += reversed(part.parts)
    return rules


class _Derivation(NamedTuple):
    """A symbol's derivation: number of steps, first rule (None for a terminal), derivations of the rule's symbols."""

    steps: int = 0
    rule: int | None = None
    parts: tuple["_Derivation", ...] = ()


class _Chart:
    """Chart of the shortest derivations of every symbol that cover siblings start ... end - 1.

    Filled from right to left, since derivations from a position use only those from there or further right; at one
    position until none gets shorter, since a symbol may derive itself (left recursion).
    """

    def __init__(self, grammar: Grammar, row: list[SceneGraph]) -> None:
        self.grammar, self.row = grammar, row
        self.inside = [self._inside(node) for node in row]
        self.best: dict[tuple[str, int], dict[int, _Derivation]] = {}
        for start in reversed(range(len(row) + 1)):
            here = [(s, start) for s in grammar.nonterminals if s not in grammar.classes]
            self.best |= {key: {} for key in here}
            before = None
            while (now := [{end: p.steps for end, p in self.best[key].items()} for key in here]) != before:
                before = now
                self.best |= {key: self.expand_alternatives(*key) for key in here}

    def _inside(self, node: SceneGraph) -> _Derivation | None:
        """Return the derivation of an object's children, or None if the grammar has none."""
        if node.symbol not in self.grammar.nonterminals:
            return None if node.children else _Derivation()
        return _Chart(self.grammar, node.children).expand_alternatives(node.symbol, 0).get(len(node.children))

    def derivations_covering(self, symbol: str, start: int) -> dict[int, _Derivation]:
        """Return the derivations of a symbol that cover siblings from ``start`` on, by the index where they end."""
        if (symbol, start) in self.best:
            return self.best[symbol, start]
        if symbol not in self.grammar.classes:
            return {start: _Derivation()}
        part = self.inside[start] if start < len(self.row) and self.row[start].symbol == symbol else None
        return {} if part is None else {start + 1: part}

    def expand_alternatives(self, symbol: str, start: int) -> dict[int, _Derivation]:
        """Return the derivations of a non-terminal that cover siblings from ``start`` on, over all its rules.

        They are keyed by the index where they end.
        """
        best: dict[int, _Derivation] = {}
        for number in self.grammar.rules_of(symbol):
            ends = {start: _Derivation(1, number)}
            for s in self.grammar.rules[number].rhs:
                longer: dict[int, _Derivation] = {}
                for middle, so_far in ends.items():
                    for end, part in self.derivations_covering(s, middle).items():
                        steps = so_far.steps + part.steps
                        if end not in longer or steps < longer[end].steps:
                            longer[end] = _Derivation(steps, number, (*so_far.parts, part))
                ends = longer
            for end, part in ends.items():
                if end not in best or part.steps < best[end].steps:
                    best[end] = part
        return best
