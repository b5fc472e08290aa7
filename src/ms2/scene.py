"""Scenes: batches of objects with attributes, and the scene graph that a person reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.derivation import Frontier, Tree, to_tree
from ms2.grammar import Grammar, GrammarError, Rule


class Attribute(NamedTuple):
    """A parameter that a renderer reads for every object: its name and bounds, both inclusive."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class SceneBatch:
    """b scenes of at most n objects: what the grammar generates, with parameters as attributes.

    Objects stand in the order in which the derivation made them; places after a scene's last object have
    class -1 and are to be ignored.

    Attributes:
        classes: Class number of each object, an index into the grammar's ``classes``.
        parents: Index of the nearest renderable ancestor, or -1.
        attributes: Continuous parameters by name.
    """

    classes: Int[Tensor, "b n"]
    parents: Int[Tensor, "b n"]
    attributes: dict[str, Float[Tensor, "b n"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: Tensor | slice) -> "SceneBatch":
        """Some of the scenes."""
        attributes = {name: values[index] for name, values in self.attributes.items()}
        return SceneBatch(self.classes[index], self.parents[index], attributes)

    @property
    def mask(self) -> Bool[Tensor, "b n"]:
        """Which places hold an object."""
        return self.classes >= 0

    def with_attributes(self, **attributes: Float[Tensor, "b n"]) -> "SceneBatch":
        """The same scenes with these parameters beside or instead of theirs."""
        return replace(self, attributes=self.attributes | attributes)

    def counts(self, num_classes: int) -> Int[Tensor, "b c"]:
        """Objects of each class in each scene."""
        counts = self.classes.new_zeros(len(self), num_classes + 1)
        index = torch.where(self.mask, self.classes, num_classes)
        return counts.scatter_add_(1, index, torch.ones_like(index))[:, :num_classes]


def scenes_of(grammar: Grammar, rules: Int[Tensor, "b t"]) -> SceneBatch:
    """The scenes that derivations describe: of the derivation's nodes, only renderable symbols stay."""
    batch, steps = rules.shape
    frontier = Frontier(grammar, batch, steps, rules.device)
    tables = frontier.tables
    width = tables.emit.shape[1]
    offsets = torch.arange(width, device=rules.device)
    classes = torch.full((batch, steps * width + width), -1, device=rules.device)
    parents = classes.clone()
    size = torch.zeros(batch, dtype=torch.long, device=rules.device)
    for rule in rules.unbind(1):
        owner = frontier.top[2]
        new = tables.emit[rule]
        inside = torch.where(tables.owns[rule], size, owner)
        # the expanded symbol's own node hangs from its owner, the rule's terminals from that node
        above = torch.where(tables.owns[rule][:, None] & (offsets == 0), owner[:, None], inside[:, None])
        columns = size[:, None] + offsets
        classes.scatter_(1, columns, new)
        parents.scatter_(1, columns, torch.where(new >= 0, above, -1))
        size = size + (new >= 0).sum(1)
        frontier.expand(rule, inside)
    most = max(1, int(size.max())) if batch else 1
    return SceneBatch(classes[:, :most].contiguous(), parents[:, :most].contiguous())


@dataclass
class SceneGraph:
    """One scene as a person reads it: an object and what hangs from it, in order.

    The root is the scene itself, and carries the grammar's start symbol.
    """

    symbol: str
    children: list["SceneGraph"] = field(default_factory=list)

    def __str__(self) -> str:
        return self._lines("")

    def _lines(self, indent: str) -> str:
        return "\n".join([indent + self.symbol, *(c._lines(indent + "  ") for c in self.children)])


def graph_of(grammar: Grammar, rules: Sequence[int]) -> SceneGraph:
    """The scene graph of one derivation.

    Raises:
        GrammarError: If ``rules`` is no finished derivation.
    """

    def objects(node: Tree) -> list[SceneGraph]:
        below = [graph for child in node.children for graph in objects(child)]
        return [SceneGraph(node.symbol, below)] if node.symbol in grammar.classes else below

    return SceneGraph(grammar.start, objects(to_tree(grammar, rules)))


def derivation_of(grammar: Grammar, graph: SceneGraph) -> list[int]:
    """The shortest derivation whose scene graph is ``graph``: the inverse of `graph_of`.

    Exact wherever different derivations have different scene graphs; an ambiguous grammar loses which of
    them it was.

    Raises:
        GrammarError: If the grammar derives no such scene.
    """
    found = _Parser(grammar, graph.children).derive(grammar.start, 0)
    if len(graph.children) not in found:
        raise GrammarError(f"the grammar derives no scene\n{graph}")
    return found[len(graph.children)]


class _Parser:
    """Matches non-terminals against the objects ``row``, a list of siblings, by memoised recursive descent."""

    def __init__(self, grammar: Grammar, row: list[SceneGraph]) -> None:
        self.grammar, self.row = grammar, row
        self.memo: dict[tuple[str, int], dict[int, list[int]]] = {}
        self.unfinished: dict[tuple[str, int], bool] = {}

    def derive(self, symbol: str, start: int) -> dict[int, list[int]]:
        """Shortest derivations of ``symbol`` that cover the siblings from ``start`` on, by where they end."""
        if symbol not in self.grammar.nonterminals:
            here = start < len(self.row) and self.row[start].symbol == symbol and not self.row[start].children
            return ({start + 1: []} if here else {}) if symbol in self.grammar.classes else {start: []}
        if symbol in self.grammar.classes:
            return self._renderable(symbol, start)
        if (symbol, start) not in self.memo:
            self._fixed_point(symbol, start)
        elif (symbol, start) in self.unfinished:
            self.unfinished[symbol, start] = True
        return self.memo[symbol, start]

    def _renderable(self, symbol: str, start: int) -> dict[int, list[int]]:
        """One node of the graph, whose children must match one of the symbol's own rules."""
        if start >= len(self.row) or self.row[start].symbol != symbol:
            return {}
        below = self.row[start].children
        found = _Parser(self.grammar, below)._alternatives(symbol, 0)
        return {start + 1: found[len(below)]} if len(below) in found else {}

    def _fixed_point(self, symbol: str, start: int) -> None:
        """Fill the memo; where the symbol needed its own answer (left recursion), until nothing gets shorter."""
        key, before = (symbol, start), dict(self.memo)
        best: dict[int, list[int]] = {}
        while True:
            # what was derived from an answer that has since changed must be derived again
            self.memo = before | {key: best}
            self.unfinished[key] = False
            new = self._alternatives(symbol, start)
            asked_itself = self.unfinished.pop(key)
            settled = {e: len(r) for e, r in new.items()} == {e: len(r) for e, r in best.items()}
            best = self.memo[key] = new
            if settled or not asked_itself:
                return

    def _alternatives(self, symbol: str, start: int) -> dict[int, list[int]]:
        best: dict[int, list[int]] = {}
        for number in self.grammar.expansions(symbol):
            for end, rules in self._sequence(self.grammar.rules[number], start).items():
                if end not in best or len(rules) + 1 < len(best[end]):
                    best[end] = [number, *rules]
        return best

    def _sequence(self, rule: Rule, start: int) -> dict[int, list[int]]:
        ends: dict[int, list[int]] = {start: []}
        for symbol in rule.rhs:
            longer: dict[int, list[int]] = {}
            for middle, rules in ends.items():
                for end, more in self.derive(symbol, middle).items():
                    if end not in longer or len(rules) + len(more) < len(longer[end]):
                        longer[end] = rules + more
            ends = longer
        return ends
