"""The shortest description of scenes whose parents are known: lists, groups, choices, kinds of scenes."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ms2.learning.induction.hypothesis import Hypothesis, class_place, scene_place
from ms2.learning.induction.list_search import Budget, ListSearch
from ms2.learning.induction.lists import Expansion, Place, fit_all
from ms2.learning.induction.object_table import ObjectTable

MAX_KINDS = 8
"""Largest number of kinds of scenes."""
SPLITS_REFINED = 3
"""Splits of a kind that are refined, of all that are tried."""
MAX_ROUNDS = 10
"""Rounds of refinement, in each of which scenes go to the kind under which they are more probable."""


def search_structure(table: ObjectTable, budget: Budget, max_kinds: int = MAX_KINDS) -> Hypothesis:
    """Find the rules and tables with the shortest code for scenes and themselves.

    Args:
        table: The scenes.
        budget: Time that it may take.
        max_kinds: Largest number of kinds of scenes; 1 for a grammar without kinds.
    """
    owners = table.label[table.parent[table.parent >= 0]].unique().tolist()
    places = {c: class_place(table, c) for c in owners}
    plain = {c: ListSearch(place).run(budget) for c, place in places.items()}
    leading = {c: ListSearch(place, leading_allowed=True).run(budget) for c, place in places.items()}
    differing = [c for c in owners if leading[c].code < plain[c].code]
    scenes = scene_place(table)
    nowhere = torch.zeros(table.num_scenes, dtype=torch.long)

    def hypothesis(alone: list[int]) -> Hypothesis:
        inside = {
            c: ListSearch(place, c in alone, alone).run(budget) if alone else plain[c] for c, place in places.items()
        }
        top = ListSearch(scenes, alone=alone).run(budget)
        return Hypothesis(table.classes, (top,), nowhere, inside)

    candidates = [hypothesis(alone) for alone in ([], differing)[: 1 + bool(differing)]]
    best = min(candidates, key=lambda found: found.code)
    alone = differing if best is not candidates[0] else []
    return split_kinds(best, scenes, alone, budget, max_kinds)


def split_kinds(
    best: Hypothesis, scenes: Place, alone: list[int], budget: Budget, max_kinds: int = MAX_KINDS
) -> Hypothesis:
    """Split kinds of scenes in two as long as that makes the description shorter.

    Args:
        best: The hypothesis to begin with.
        scenes: Objects without a parent of each scene.
        alone: Classes whose objects are items by themselves.
        budget: Time that it may take.
        max_kinds: Largest number of kinds.
    """
    tried: set[int] = set()
    while len(best.kinds) < max_kinds and not budget.over:
        waiting = [k for k in range(len(best.kinds)) if k not in tried]
        if not waiting:
            break
        kind = waiting[0]
        found = _split(best, kind, scenes, alone, budget)
        if found is not None and found.code < best.code:
            best, tried = found, tried - {kind}
        else:
            tried.add(kind)
    return best


def _split(before: Hypothesis, kind: int, scenes: Place, alone: list[int], budget: Budget) -> Hypothesis | None:
    """Split one kind of scenes in two, in the best way that was found."""
    rows = (before.kind_of == kind).nonzero()[:, 0]
    part = _rows(scenes, rows)
    lists = before.kinds[kind]
    if len({c for rule in lists.rules for c in rule.classes}) < 2:
        return None  # kinds tell what classes have to do with each other; of one class, its list tells all
    starts = list(_first_splits(part))
    ranked = []
    for second in starts:
        both = _fit_both(part, lists, second)
        if both is not None:
            ranked.append((_with_split(before, kind, rows, second, both).code, second))
        if budget.over:
            break
    found = []
    for _, second in sorted(ranked, key=lambda one: one[0])[:SPLITS_REFINED]:
        refined = _refine(part, lists, second, before, budget)
        if refined is not None:
            halves = tuple(
                ListSearch(_rows(part, side.nonzero()[:, 0]), alone=alone).run(budget) for side in (~refined, refined)
            )
            found.append(_with_split(before, kind, rows, refined, halves))
    return min(found, key=lambda one: one.code, default=None)


def _first_splits(part: Place) -> "list[Bool[Tensor, ' m']]":
    """Split scenes by how many objects of a class, or of all, they have: more than the quantiles, or not."""
    columns = [*part.counts.T, part.counts.sum(1)]
    splits: dict[bytes, Bool[Tensor, " m"]] = {}
    for column in columns:
        for q in (0.25, 0.5, 0.75):
            second = column > column.double().quantile(q).floor()
            if 0 < int(second.sum()) < len(second):
                splits.setdefault(second.numpy().tobytes(), second)
    return list(splits.values())


def _refine(
    part: Place, lists: Expansion, second: Bool[Tensor, " m"], before: Hypothesis, budget: Budget
) -> Bool[Tensor, " m"] | None:
    """Move scenes to the half under which they are more probable, until none moves."""
    for _ in range(MAX_ROUNDS):
        both = _fit_both(part, lists, second)
        if both is None or budget.over:
            break
        share = (second.double().sum() + 0.5) / (len(second) + 1)
        first_log, second_log = both[0].log_prob(part) + (1 - share).log(), both[1].log_prob(part) + share.log()
        moved = second_log > first_log
        if bool((moved == second).all()) or not 0 < int(moved.sum()) < len(moved):
            break
        second = moved
    return second


def _fit_both(part: Place, lists: Expansion, second: Bool[Tensor, " m"]) -> tuple[Expansion, Expansion] | None:
    first, other = (fit_all(_rows(part, side.nonzero()[:, 0]), lists.rules) for side in (~second, second))
    return None if first is None or other is None else (first, other)


def _with_split(
    before: Hypothesis, kind: int, rows: Int[Tensor, " m"], second: Bool[Tensor, " m"], both: tuple[Expansion, ...]
) -> Hypothesis:
    kind_of = before.kind_of.clone()
    kind_of[rows[second]] = len(before.kinds)
    kinds = list(before.kinds)
    kinds[kind] = both[0]
    return Hypothesis(before.classes, (*kinds, both[1]), kind_of, before.inside)


def _rows(place: Place, rows: Int[Tensor, " m"]) -> Place:
    return Place(place.counts[rows], place.rank[rows], place.num_symbols)
