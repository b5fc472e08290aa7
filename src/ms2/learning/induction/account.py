"""A readable account of what was learned: what each rule pays, and what was considered and left out."""

from collections.abc import Iterator, Sequence

import torch

from ms2.learning.induction.codes import choice_code
from ms2.learning.induction.hypothesis import Hypothesis, class_place, scene_place
from ms2.learning.induction.list_search import Budget, ListSearch, Move
from ms2.learning.induction.lists import FittedList, Item, ListRule, Place
from ms2.learning.induction.parents import FoundParents, Nesting
from ms2.learning.induction.search import split_kinds
from ms2.learning.induction.writing import WrittenGrammar

MAX_LEFT_OUT = 8
"""Changes that were left out and are listed, the cheapest first."""
MAX_NAMED = 6
"""Alternatives of a list that are named; of more, the first few are, and how many there are."""
MAX_SECONDS = 5.0
"""Seconds that it may take to find what the nearest changes of one place would cost."""
VERBS = {
    "join": "one list for {}",
    "group": "{} always together, as one item",
    "split": "lists of their own for {}",
    "ungroup": "lists of their own for {}",
    "lead": "a distribution of its own for one more of the first parents: {}",
    "unlead": "no distribution of its own for the last of the first parents that differ: {}",
}
RELATED = {
    "inside": "{} inside {}",
    "row": "{} in the row of {}",
    "column": "{} in the column of {}",
    "on": "{} on the upper edge of {}",
}


def account(found: FoundParents, hypothesis: Hypothesis, written: WrittenGrammar, budget: Budget) -> str:
    """Write the account.

    Args:
        found: The scenes and how their parents were found.
        hypothesis: What was learned from them.
        written: The grammar that it was written as.
        budget: Time that the search had.
    """
    return "\n".join(_Account(found, hypothesis, written).lines(budget)) + "\n"


class _Account:
    def __init__(self, found: FoundParents, hypothesis: Hypothesis, written: WrittenGrammar) -> None:
        self.found, self.hypothesis, self.written = found, hypothesis, written
        self.names, self.scenes = hypothesis.classes, found.table.num_scenes

    def per_scene(self, nats: float) -> str:
        """Format nats per scene."""
        return f"{nats / self.scenes:.3f}"

    def lines(self, budget: Budget) -> Iterator[str]:
        """Yield the lines of the account."""
        table = self.found.table
        whole, plain = self.hypothesis.code, _without_structure(self.found)
        num_classes = len(table.label.unique())
        yield f"{self.scenes} scenes, {len(table)} objects of {num_classes} classes. All numbers are nats per scene."
        yield f"Structure takes {self.per_scene(whole)}, with tables and rules. A list of each class that goes on"
        yield f"with one probability takes {self.per_scene(plain)}, and does not tell which objects belong together."
        if budget.exhausted:
            yield "The time was over before the search ended: this is the best so far. Give more with --seconds."
        yield ""
        yield from self.written.rules
        yield ""
        yield "What is in it, and what it saves:"
        for nesting in self.found.kept:
            yield f"  {self.nesting(nesting)}: {self.per_scene(nesting.saving)}, mostly in where they are"
        if len(self.hypothesis.kinds) > 1:
            yield f"  {len(self.hypothesis.kinds)} kinds of scenes: {self.per_scene(self.kinds_saving())}"
        moves = list(self.moves())
        for key, one in self.lists():
            yield f"  {self.list_line(key, one, moves)}"
        yield ""
        yield "What was considered and left out, and what it would cost:"
        left = [(-move.saving, self.move(move)) for move in moves if move.name != "unlead"]
        left += [(-one.saving, self.nesting(one)) for one in self.found.rejected]
        for cost, text in sorted(left)[:MAX_LEFT_OUT]:
            yield f"  {text}: {self.per_scene(cost)}"
        if not left:
            yield "  nothing"
        if self.found.kept:
            yield f"Objects of one class are numbered {self.found.order}."

    def lists(self) -> "Iterator[tuple[tuple[int | None, int, int], FittedList]]":
        """Yield all lists, each with its place and number there."""
        places = [((None, k), one) for k, one in enumerate(self.hypothesis.kinds)]
        for place, lists in [*places, *(((c, 0), one) for c, one in self.hypothesis.inside.items())]:
            for number, fitted in enumerate(lists.lists):
                yield (*place, number), fitted

    def list_line(self, key: "tuple[int | None, int, int]", one: FittedList, moves: Sequence[Move]) -> str:
        """Say what a list's distribution is, and what it saves against the nearest change."""
        name = self.written.symbols[key]
        items = self.items(one.rule)
        where = "" if key[0] is None else f" in each {self.names[key[0]]}"
        if name is None:
            return f"{items}{where}: always {one.constant}"
        means = [f"{table.mean:.2f}" for table in one.tables]
        mean = means[0] if len(means) == 1 else f"{', '.join(means[:-1])} for the first, {means[-1]} for the others"
        geometric = sum(
            float(choice_code(torch.tensor([round(t.mean * t.num_lists), t.num_lists]))) for t in one.tables
        )
        saved = geometric - sum(t.code for t in one.tables)
        text = f"{name}, list of {items}{where}: mean {mean}"
        if saved > 0:
            text += f"; its table saves {self.per_scene(saved)}"
        undone = [-move.saving for move in moves if one.rule in move.removed]
        return text + (f"; the nearest change would cost {self.per_scene(min(undone))}" if undone else "")

    def moves(self) -> Iterator[Move]:
        """Yield all changes of the lists that are left."""
        scenes = scene_place(self.found.table)
        budget = Budget(MAX_SECONDS)
        for k, one in enumerate(self.hypothesis.kinds):
            rows = (self.hypothesis.kind_of == k).nonzero()[:, 0]
            part = Place(scenes.counts[rows], scenes.rank[rows], scenes.num_symbols)
            yield from ListSearch(part).moves(one.rules, budget)
        for c, one in self.hypothesis.inside.items():
            yield from ListSearch(class_place(self.found.table, c), leading_allowed=True).moves(one.rules, budget)

    def kinds_saving(self) -> float:
        """Compute what kinds of scenes save against one kind."""
        scenes = scene_place(self.found.table)
        budget = Budget(MAX_SECONDS)
        alone = ListSearch(scenes).run(budget)
        one = Hypothesis(self.names, (alone,), torch.zeros_like(self.hypothesis.kind_of), self.hypothesis.inside)
        return split_kinds(one, scenes, [], budget, max_kinds=1).code - self.hypothesis.code

    def items(self, rule: ListRule) -> str:
        """Name the alternatives of a list, or the first few and how many there are."""
        names = [self.item(item) for item in rule.items]
        more = [f"... ({len(names)} in all)"] if len(names) > MAX_NAMED else []
        return " | ".join([*names[: MAX_NAMED - len(more)], *more])

    def item(self, item: Item) -> str:
        """Name an item."""
        return " ".join(self.names[c] for c, times in item for _ in range(times))

    def nesting(self, one: Nesting) -> str:
        """Say what nests in what."""
        return RELATED[one.relation].format(self.names[one.child], self.names[one.parent])

    def move(self, move: Move) -> str:
        """Say what a change would be."""
        some = move.added if move.name in ("split", "ungroup") else move.removed
        named = [self.items(rule) for rule in some]
        return VERBS[move.name].format(" and ".join(named))


def _without_structure(found: FoundParents) -> float:
    """Compute the nats of a list of each class that goes on with one probability, without parents."""
    numbers = found.table.label.bincount(minlength=len(found.table.classes)).tolist()
    return sum(float(choice_code(torch.tensor([n, found.table.num_scenes]))) for n in numbers if n)
