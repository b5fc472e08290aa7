"""Induce a world from scenes, and write it to a folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ms2.core.errors import suggest
from ms2.core.files import write_text
from ms2.learning.induction.account import account
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.list_search import Budget
from ms2.learning.induction.object_table import InductionError, ObjectTable
from ms2.learning.induction.parents import FoundParents, find_parents
from ms2.learning.induction.placement import Given, placement_settings
from ms2.learning.induction.search import search_structure
from ms2.learning.induction.writing import WrittenGrammar, to_yaml, write_grammar

MAX_SEARCHED = 20_000
"""Scenes that the search looks at; of more, as many are drawn evenly, which tell the rules as well."""


@dataclass(frozen=True)
class Induced:
    """What was learned from scenes.

    Attributes:
        found: The scenes that were searched, and how their parents were found.
        hypothesis: Rules and tables.
        written: The grammar and its structure prior.
        account: What each rule pays, and what was left out.
        placement: Settings of a parameter prior of places and sizes; empty where no places are known.
    """

    found: FoundParents
    hypothesis: Hypothesis
    written: WrittenGrammar
    account: str
    placement: dict[str, Any]

    def write(self, folder: Path) -> list[str]:
        """Write ``grammar.txt``, ``world.yaml``, ``parameters.yaml`` if places are known, and ``account.txt``.

        Returns:
            The names of the files.
        """
        files = {
            "grammar.txt": "\n".join(self.written.rules) + "\n",
            "world.yaml": to_yaml({"world": self.written.settings()}),
            "account.txt": self.account,
        }
        if self.placement:
            files["parameters.yaml"] = to_yaml({"world": {"parameter_prior": self.placement}})
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
        return sorted(files)


def induce(table: ObjectTable, seconds: float = 240.0, given: Given | None = None, stray: float = 0.0) -> Induced:
    """Learn rules, list lengths and parents from scenes.

    Args:
        table: The scenes.
        seconds: Time after which the best so far is returned.
        given: Attributes of the renderer, where there is one; those of boxes by default.
        stray: Fraction of the objects of a class up to which those that lack the parent that the others have are taken
            as signs of misread scenes, which are left out.
    """
    if table.num_scenes > MAX_SEARCHED:
        table = table.select(torch.linspace(0, table.num_scenes - 1, MAX_SEARCHED).long())
    budget = Budget(seconds)
    found = without_misread(find_parents(table, budget), stray)
    hypothesis = search_structure(found.table, budget)
    written = write_grammar(hypothesis)
    text = account(found, hypothesis, written, budget)
    return Induced(found, hypothesis, written, text, placement_settings(found, written.renderable, given))


def without_misread(found: FoundParents, most: float) -> FoundParents:
    """Leave out scenes with objects without a parent, of a class that nests, if these are no more than a fraction.

    Where a parent was not read, all of its children are without one: what is left of such a scene tells neither its
    number of parents nor which is the first.
    """
    for one in found.kept:
        table = found.table
        of_class = table.label == one.child
        stray = of_class & (table.parent < 0)
        if 0 < int(stray.sum()) <= most * int(of_class.sum()):
            misread = torch.zeros(table.num_scenes, dtype=torch.bool).index_fill_(0, table.scene[stray], True)
            found = replace(found, table=table.select((~misread).nonzero()[:, 0]))
    return found


def choose_classes(table: ObjectTable, names: list[str]) -> ObjectTable:
    """Keep the objects of some classes, numbered in the order of their names.

    Raises:
        InductionError: If the scenes have no class of a name.
    """
    for name in names:
        if name not in table.classes:
            raise InductionError(f"the scenes have no class {name!r}. {suggest(name, table.classes)}")
    new = torch.tensor([names.index(name) if name in names else -1 for name in table.classes])
    label = new[table.label]
    kept = table.rows((label >= 0).nonzero()[:, 0])
    return replace(kept, classes=tuple(names), label=new[kept.label])
