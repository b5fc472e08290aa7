"""Scenes: batches of objects with attributes, and the scene graph that a person reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.derivation import Frontier, to_tree
from ms2.grammar import Grammar, GrammarError


class Attribute(NamedTuple):
    """A parameter of every object, or of the scene: what a renderer reads, and what may be learned.

    Attributes:
        name: Its name.
        low: Least value.
        high: Greatest value.
        periodic: Whether it is an angle, so that ``high`` is ``low`` again.
        relative: Whether its bounds are those of its difference to the parent's, which it then follows.
    """

    name: str
    low: float
    high: float
    periodic: bool = False
    relative: bool = False

    def numbers(self, value: Float[Tensor, "*b"]) -> list[Float[Tensor, "*b"]]:
        """A value as numbers from -1 to 1, for a network: of an angle its cosine and sine."""
        if self.periodic:
            return [value.cos(), value.sin()]
        return [2 * (value - self.low) / (self.high - self.low) - 1]


@dataclass(frozen=True)
class SceneBatch:
    """b scenes of at most n objects: what the grammar generates, with parameters as attributes.

    Objects stand in the order in which the derivation made them; places after a scene's last object have
    class -1 and are to be ignored.

    Attributes:
        classes: Class number of each object, an index into the grammar's ``classes``.
        parents: Index of the nearest renderable ancestor, or -1.
        attributes: Continuous parameters of each object by name.
        environment: Continuous parameters of the scene as a whole by name: its ground, its light.
    """

    classes: Int[Tensor, "b n"]
    parents: Int[Tensor, "b n"]
    attributes: dict[str, Float[Tensor, "b n"]] = field(default_factory=dict)
    environment: dict[str, Float[Tensor, " b"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: Tensor | slice) -> "SceneBatch":
        """Some of the scenes."""
        attributes = {name: values[index] for name, values in self.attributes.items()}
        environment = {name: values[index] for name, values in self.environment.items()}
        return SceneBatch(self.classes[index], self.parents[index], attributes, environment)

    def to(self, device: torch.device) -> "SceneBatch":
        """The same scenes on a device."""
        attributes = {name: values.to(device) for name, values in self.attributes.items()}
        environment = {name: values.to(device) for name, values in self.environment.items()}
        return SceneBatch(self.classes.to(device), self.parents.to(device), attributes, environment)

    @property
    def mask(self) -> Bool[Tensor, "b n"]:
        """Which places hold an object."""
        return self.classes >= 0

    def of_parents(self, values: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """What of each object's values its parent has; 0 without a parent."""
        return torch.where(self.parents >= 0, values.gather(1, self.parents.clamp(min=0)), 0.0)

    def value(self, attribute: Attribute) -> Float[Tensor, "b n"]:
        """An attribute of the objects, less the parent's where it is relative."""
        values = self.attributes[attribute.name]
        return values - self.of_parents(values) if attribute.relative else values

    def with_attributes(self, **attributes: Float[Tensor, "b n"]) -> "SceneBatch":
        """The same scenes with these parameters beside or instead of theirs."""
        return replace(self, attributes=self.attributes | attributes)

    def with_environment(self, **environment: Float[Tensor, " b"]) -> "SceneBatch":
        """The same scenes with these parameters of the whole beside or instead of theirs."""
        return replace(self, environment=self.environment | environment)

    def packed(self) -> "SceneBatch":
        """The same scenes with every scene's objects moved up to its first places, in their order."""
        most = max(1, int(self.mask.sum(1).max())) if len(self) else 1
        order = (~self.mask).long().argsort(dim=1, stable=True)
        parents = torch.where(self.parents >= 0, order.argsort(1).gather(1, self.parents.clamp(min=0)), -1)

        def moved(values: Tensor) -> Tensor:
            return values.gather(1, order)[:, :most]

        attributes = {name: moved(values) for name, values in self.attributes.items()}
        return SceneBatch(moved(self.classes), moved(parents), attributes, self.environment)

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
        owner = frontier.owner
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
    root = SceneGraph(grammar.start)
    stack = [(to_tree(grammar, rules), root)]
    while stack:
        node, above = stack.pop()
        if node.symbol in grammar.classes:
            above.children.append(SceneGraph(node.symbol))
            above = above.children[-1]
        stack += [(child, above) for child in reversed(node.children)]
    return root


def derivation_of(grammar: Grammar, graph: SceneGraph) -> list[int]:
    """The shortest derivation whose scene graph is ``graph``: the inverse of `graph_of`.

    Exact wherever different derivations have different scene graphs; an ambiguous grammar loses which of
    them it was.

    Raises:
        GrammarError: If the grammar derives no such scene.
    """
    found = _Chart(grammar, graph.children).ends(grammar.start, 0)
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


class _Part(NamedTuple):
    """A derivation of one symbol: its steps, its first rule (none for a terminal), and the parts of that rule."""

    steps: int = 0
    rule: int | None = None
    parts: tuple["_Part", ...] = ()


class _Chart:
    """Shortest derivations of every symbol from every place in a row of siblings, by where they end.

    Filled from the right, because what starts at a place needs only what starts there or further right; at one
    place until nothing gets shorter, because a symbol may need itself (left recursion).
    """

    def __init__(self, grammar: Grammar, row: list[SceneGraph]) -> None:
        self.grammar, self.row = grammar, row
        self.inside = [self._inside(node) for node in row]
        self.best: dict[tuple[str, int], dict[int, _Part]] = {}
        for start in reversed(range(len(row) + 1)):
            here = [(s, start) for s in grammar.nonterminals if s not in grammar.classes]
            self.best |= {key: {} for key in here}
            before = None
            while (now := [{end: p.steps for end, p in self.best[key].items()} for key in here]) != before:
                before = now
                self.best |= {key: self.alternatives(*key) for key in here}

    def _inside(self, node: SceneGraph) -> _Part | None:
        """The derivation below an object, if the grammar has one with these children."""
        if node.symbol not in self.grammar.nonterminals:
            return None if node.children else _Part()
        return _Chart(self.grammar, node.children).alternatives(node.symbol, 0).get(len(node.children))

    def ends(self, symbol: str, start: int) -> dict[int, _Part]:
        """Derivations of a symbol that cover the siblings from ``start`` on."""
        if (symbol, start) in self.best:
            return self.best[symbol, start]
        if symbol not in self.grammar.classes:
            return {start: _Part()}
        part = self.inside[start] if start < len(self.row) and self.row[start].symbol == symbol else None
        return {} if part is None else {start + 1: part}

    def alternatives(self, symbol: str, start: int) -> dict[int, _Part]:
        """The same of a non-terminal, by its rules."""
        best: dict[int, _Part] = {}
        for number in self.grammar.expansions(symbol):
            ends = {start: _Part(1, number)}
            for s in self.grammar.rules[number].rhs:
                longer: dict[int, _Part] = {}
                for middle, so_far in ends.items():
                    for end, part in self.ends(s, middle).items():
                        steps = so_far.steps + part.steps
                        if end not in longer or steps < longer[end].steps:
                            longer[end] = _Part(steps, number, (*so_far.parts, part))
                ends = longer
            for end, part in ends.items():
                if end not in best or part.steps < best[end].steps:
                    best[end] = part
        return best
