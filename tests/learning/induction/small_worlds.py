"""Small worlds with known rules, for tests of what is learned from their scenes."""

from collections.abc import Sequence
from typing import Any

import torch

from ms2.grammar.grammar import Grammar
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.lists import Expansion
from ms2.learning.induction.object_table import ObjectTable
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import scenes_from_derivations

Shape = tuple[frozenset[tuple[frozenset[tuple[tuple[str, int], ...]], int]], ...]


def drawn(grammar: Grammar, prior: StructurePrior, n: int, seed: int = 0) -> ObjectTable:
    """Scenes of a prior, with their parents."""
    rules = prior.sample(grammar, n, torch.Generator().manual_seed(seed))
    return ObjectTable.from_scenes(scenes_from_derivations(grammar, rules), grammar.classes)


def lists_of(expansion: Expansion, classes: Sequence[str]) -> set[tuple[frozenset[Any], int]]:
    """The lists of a place by names, without order: their alternatives, and the parents with tables of their own."""
    return {
        (frozenset(tuple((classes[c], times) for c, times in item) for item in rule.items), rule.leading)
        for rule in expansion.rules
    }


def shape(hypothesis: Hypothesis) -> tuple[list[set[Any]], dict[str, set[Any]]]:
    """All lists by names, of each kind of scene and under each class."""
    names = hypothesis.classes
    inside = {names[c]: lists_of(one, names) for c, one in hypothesis.inside.items()}
    return [lists_of(one, names) for one in hypothesis.kinds], inside


def flat(*names: str, leading: int = 0) -> tuple[frozenset[Any], int]:
    """A list of single objects of these classes."""
    return frozenset(((name, 1),) for name in names), leading


def canonical(table: ObjectTable, scene: int) -> Any:
    """A scene such that equal ones are equal: under each parent, the sequence of children of each class."""

    def children(owner: int) -> Any:
        rows = [i for i in range(len(table)) if int(table.scene[i]) == scene and int(table.parent[i]) == owner]
        labels = sorted({int(table.label[i]) for i in rows})
        return tuple((c, tuple(children(i) for i in rows if int(table.label[i]) == c)) for c in labels)

    return children(-1)
