"""Induce a world from scenes, and write it to a folder."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ms2.core.errors import suggest
from ms2.core.files import write_text
from ms2.learning.induction.account import account
from ms2.learning.induction.attributes import attribute_bounds
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.list_search import Budget
from ms2.learning.induction.object_table import InductionError, ObjectTable
from ms2.learning.induction.parents import FoundParents, find_parents
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
    """

    found: FoundParents
    hypothesis: Hypothesis
    written: WrittenGrammar
    account: str

    def write(self, folder: Path) -> None:
        """Write ``world.yaml``, ``grammar.txt``, ``attributes.yaml`` and ``account.txt``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "grammar.txt", "\n".join(self.written.rules) + "\n")
        write_text(folder / "world.yaml", to_yaml({"world": self.written.settings()}))
        write_text(folder / "attributes.yaml", to_yaml(attribute_bounds(self.found)))
        write_text(folder / "account.txt", self.account)


def induce(table: ObjectTable, seconds: float = 240.0) -> Induced:
    """Learn rules, list lengths and parents from scenes.

    Args:
        table: The scenes.
        seconds: Time after which the best so far is returned.
    """
    if table.num_scenes > MAX_SEARCHED:
        table = table.select(torch.linspace(0, table.num_scenes - 1, MAX_SEARCHED).long())
    budget = Budget(seconds)
    found = find_parents(table, budget)
    hypothesis = search_structure(found.table, budget)
    written = write_grammar(hypothesis)
    return Induced(found, hypothesis, written, account(found, hypothesis, written, budget))


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
