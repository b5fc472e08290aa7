"""Write a hypothesis as a grammar and its structure prior."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ms2.grammar.grammar import Grammar
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.lists import Expansion, FittedList
from ms2.metrics.statistics import plural
from ms2.priors.structure import ListLengthPrior

DIGITS = 5
"""Significant digits of written probabilities."""
NO_SYMBOL = re.compile(r"[\s|#]|->|→|ε")
"""What a symbol of a grammar cannot contain."""


@dataclass
class WrittenGrammar:
    """A grammar as text with its tables, and which rules each list of the hypothesis became.

    Attributes:
        rules: Lines of the grammar.
        renderable: Symbols of the classes that occur.
        lengths: Tables of list lengths for `ListLengthPrior`.
        weights: Weights of rules for `ListLengthPrior`.
        symbols: Symbol of each list by its place (``None`` and the number of the kind for a scene's, else the class)
            and its number there; None where the list has no symbol, since it is always the same.
    """

    rules: list[str] = field(default_factory=list)
    renderable: list[str] = field(default_factory=list)
    lengths: dict[str, list[Any]] = field(default_factory=dict)
    weights: dict[str, list[float]] = field(default_factory=dict)
    symbols: dict[tuple[int | None, int, int], str | None] = field(default_factory=dict)

    @property
    def grammar(self) -> Grammar:
        """The grammar."""
        return Grammar("\n".join(self.rules), self.renderable)

    @property
    def prior(self) -> ListLengthPrior:
        """The structure prior."""
        return ListLengthPrior(self.lengths, self.weights)

    def settings(self) -> dict[str, Any]:
        """Return grammar and structure prior as settings of a world."""
        return {
            "grammar": {
                "class_path": "Grammar",
                "init_args": {"rules": "\n".join(self.rules) + "\n", "renderable": self.renderable},
            },
            "structure_prior": {
                "class_path": "ListLengthPrior",
                "init_args": {"lengths": self.lengths, "weights": self.weights},
            },
        }


def write_grammar(hypothesis: Hypothesis) -> WrittenGrammar:
    """Write a hypothesis as rules and tables; names are those of the classes, without what symbols cannot contain."""
    return _Writer(hypothesis).written


class _Writer:
    def __init__(self, hypothesis: Hypothesis) -> None:
        self.written, self.taken = WrittenGrammar(), set[str]()
        used = {c for one in (*hypothesis.kinds, *hypothesis.inside.values()) for r in one.rules for c in r.classes}
        names = hypothesis.classes
        self.of_class = {c: self.unique(NO_SYMBOL.sub("_", names[c]) or "object") for c in sorted(used)}
        # under classes whose lists differ by their number, numbers count the items of a list: it must remain one
        self.numbered = {c for c, one in hypothesis.inside.items() if any(rule.leading for rule in one.rules)}
        self.written.renderable = list(self.of_class.values())
        start, many = self.unique("Scene"), len(hypothesis.kinds) > 1
        kinds = [self.unique(f"Scene{k + 1}") for k in range(len(hypothesis.kinds))] if many else [start]
        if many:
            self.rule(start, [[kind] for kind in kinds])
            self.written.weights[start] = rounded(hypothesis.kind_probabilities.tolist())
        for k, (symbol, lists) in enumerate(zip(kinds, hypothesis.kinds, strict=True)):
            self.expand(symbol, lists, (None, k))
        for c, lists in hypothesis.inside.items():
            self.expand(self.of_class[c], lists, (c, 0))

    def unique(self, name: str) -> str:
        """Return the name, with a number after it if it is taken."""
        number, given = 2, name
        while name in self.taken:
            name, number = f"{given}{number}", number + 1
        self.taken.add(name)
        return name

    def rule(self, head: str, alternatives: Iterable[Sequence[str]]) -> None:
        """Write the rules of a symbol."""
        bodies = [" ".join(body) or "ε" for body in alternatives]
        self.written.rules.append(f"{head} -> {' | '.join(bodies)}")

    def expand(self, symbol: str, lists: Expansion, place: tuple[int | None, int]) -> None:
        """Write the rule of a scene or of a class, and those of its lists."""
        body, later = list[str](), list[tuple[str, list[list[str]]]]()
        for number, one in enumerate(lists.lists):
            item = self.item(one, later)
            if one.constant is not None and not self.numbered & set(one.rule.classes):
                body += [item] * one.constant
                self.written.symbols[(*place, number)] = None
                continue
            name = self.unique(plural(item[:1].upper() + item[1:]))
            body.append(name)
            self.written.symbols[(*place, number)] = name
            later.insert(0, (name, [[item, name], []]))
            self.tables(name, one)
        self.rule(symbol, [body])
        for head, alternatives in later:
            self.rule(head, alternatives)

    def item(self, one: FittedList, later: list[tuple[str, list[list[str]]]]) -> str:
        """Return the symbol of a list's items, whose rules are written later if it is not a class itself."""
        if one.rule.plain:
            return self.of_class[one.rule.items[0][0][0]]
        alternatives = [[self.of_class[c] for c, times in item for _ in range(times)] for item in one.rule.items]
        flat = [symbol for body in alternatives for symbol in body]
        several = len(one.rule.items) > 1
        name = self.unique(
            "Object"
            if several and len(flat) > 3
            else ("Or" if several else "And").join(symbol[:1].upper() + symbol[1:] for symbol in dict.fromkeys(flat))
        )
        later.append((name, alternatives))
        if several:
            self.written.weights[name] = rounded(one.choice.tolist())
        return name

    def tables(self, name: str, one: FittedList) -> None:
        """Write the distribution of a list's length: as weights of its rules if it is a geometric one."""
        table = one.tables[0]
        if len(one.tables) == 1 and table.family == "geometric":
            going_on = table.weights[1] / table.weights[0]
            self.written.weights[name] = rounded([going_on, 1 - going_on])
        else:
            rows = [rounded(each.weights) for each in one.tables]
            self.written.lengths[name] = rows if len(rows) > 1 else rows[0]


def rounded(values: Sequence[float]) -> list[float]:
    """Round to a few significant digits."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Writes lists of numbers in one line, and rules as a block."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _list(dumper: _Dumper, values: list[Any]) -> yaml.SequenceNode:
    flat = not any(isinstance(value, list | dict) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flat)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def to_yaml(content: Any) -> str:
    """Write YAML for people: lists of numbers in one line, texts of several lines as blocks."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
