"""Find which objects belong to which, from their places: parents pay where places are shorter to tell beside them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.learning.induction.codes import choice_code
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.list_search import Budget
from ms2.learning.induction.object_table import ObjectTable
from ms2.learning.induction.search import search_structure

BINS = (1, 2, 4, 8, 16, 32)
"""Numbers of bins of the histograms that places are told by."""
RELATIONS = ("inside", "row", "column", "on")
"""How an object may be placed by its parent: its centre within the parent's box, within the box's height alone, within
its width alone; or standing on the parent's upper edge."""
MAX_CANDIDATES = 12
"""Pairs of classes, those that save most in places, whose structure is searched in each round."""
ORDERS = ("top to bottom", "left to right", "largest first", "as they were read")
"""Orders of objects of one class, of which the first may differ from the others."""


class Nesting(NamedTuple):
    """Objects of one class that belong to those of another.

    Attributes:
        child: Class of the objects.
        parent: Class of what they belong to.
        relation: One of `RELATIONS`.
        saving: Nats that it saves in all; negative if it costs.
    """

    child: int
    parent: int
    relation: str
    saving: float


@dataclass(frozen=True)
class FoundParents:
    """The scenes with their parents, and how they were found.

    Attributes:
        table: The objects with parents, in the order in which siblings are numbered.
        kept: What nests in what.
        rejected: What else was considered, and would be possible besides.
        order: The order of siblings, one of `ORDERS`.
    """

    table: ObjectTable
    kept: tuple[Nesting, ...]
    rejected: tuple[Nesting, ...]
    order: str


class Match(NamedTuple):
    """Parents by a relation, with the nats that tell where the objects are.

    Attributes:
        parent: Row of the parent of each object of the class; -1 where there is none.
        code: Nats that tell their places.
    """

    parent: Int[Tensor, " n"]
    code: float


def find_parents(table: ObjectTable, budget: Budget) -> FoundParents:
    """Find parents that make scenes shorter to tell: structure and places together.

    Class after class is put under another as long as that pays. An object of no suitable parent stays without one.

    Args:
        table: The scenes; if parents are known, or boxes are not, only the order of siblings is found.
        budget: Time that it may take.
    """
    kept, rejected = list[Nesting](), dict[tuple[int, int], Nesting]()
    if table.boxes is not None and not table.parents_known:
        table = ordered(table, ORDERS[0])
        now = search_structure(table, budget, max_kinds=1)
        candidates = sorted(_candidates(table, budget), key=lambda one: -one[0].saving)
        while not budget.over:
            best: tuple[Nesting, ObjectTable, Hypothesis] | None = None
            for place, parent in [c for c in candidates if _possible(c[0], kept)][:MAX_CANDIDATES]:
                rows = (table.label == place.child).nonzero()[:, 0]
                nested = table.with_parents(table.parent.index_copy(0, rows, parent))
                found = search_structure(nested, budget, max_kinds=1)
                one = place._replace(saving=place.saving + now.code - found.code)
                rejected[one.child, one.parent] = max(one, rejected.get((one.child, one.parent), one), key=_saving)
                if one.saving > 0 and (best is None or one.saving > best[0].saving):
                    best = one, nested, found
            if best is None:
                break
            kept.append(best[0])
            _, table, now = best
    others = [one for one in rejected.values() if _possible(one, kept)]
    table, order = _best_order(table, budget)
    return FoundParents(table, tuple(kept), tuple(sorted(others, key=lambda one: -one.saving)), order)


def ordered(table: ObjectTable, order: str) -> ObjectTable:
    """Return the objects of each scene in one of `ORDERS`."""
    if table.boxes is None or order == ORDERS[3]:
        return table
    x0, y0, x1, y1 = table.boxes.T
    key = {ORDERS[0]: y0 + y1, ORDERS[1]: x0 + x1, ORDERS[2]: -(x1 - x0) * (y1 - y0)}[order]
    return table.in_order(key)


def _best_order(table: ObjectTable, budget: Budget) -> tuple[ObjectTable, str]:
    """Return the objects in the order by which lists under them are shortest to tell."""
    if table.boxes is None or table.parents_known or not bool((table.parent >= 0).any()):
        return table, ORDERS[3]
    best, code = (table, ORDERS[0]), math.inf
    for order in ORDERS[:3]:
        again = ordered(table, order)
        found = search_structure(again, budget, max_kinds=1).code
        if found < code:
            best, code = (again, order), found
    return best


def _saving(one: Nesting) -> float:
    return one.saving


def _possible(one: Nesting, kept: list[Nesting]) -> bool:
    """Whether a class has no parent yet, and is not above the one that is to be its parent."""
    above = {each.child: each.parent for each in kept}
    if one.child in above:
        return False
    parent: int | None = one.parent
    while parent is not None:
        if parent == one.child:
            return False
        parent = above.get(parent)
    return True


def _candidates(table: ObjectTable, budget: Budget) -> Iterator[tuple[Nesting, Int[Tensor, " n"]]]:
    """Yield pairs of classes whose places are shorter to tell by a relation, with the parents."""
    present = table.label.unique().tolist()
    for child in present:
        alone = places_alone(table, child)
        for parent in present:
            if parent == child:
                continue
            if budget.over:
                return
            for relation in RELATIONS:
                match = match_parents(table, child, parent, relation)
                if match.code < alone:
                    yield Nesting(child, parent, relation, alone - match.code), match.parent


def axis_code(values: Float[Tensor, " n"], sizes: Sequence[int] = BINS) -> float:
    """Compute the nats that tell numbers from 0 to 1, up to a constant for each: the best histogram's.

    Args:
        values: The numbers.
        sizes: Numbers of bins to choose among.
    """
    codes = []
    for bins in sizes:
        counts = (values.clamp(0, 1) * bins).long().clamp(max=bins - 1).bincount(minlength=bins)
        codes.append(float(choice_code(counts)) - len(values) * math.log(bins))
    return min(codes) + math.log(len(sizes))


def _orders(owner: Int[Tensor, " n"]) -> float:
    """Compute the log of the number of orders of objects of one class under each owner, which places need not tell."""
    return float(torch.lgamma(owner.bincount().double() + 1).sum()) if len(owner) else 0.0


def places_alone(table: ObjectTable, child: int) -> float:
    """Compute the nats that tell where the objects of a class are in the image."""
    assert table.boxes is not None
    rows = (table.label == child).nonzero()[:, 0]
    return _alone(table.boxes[rows], table.scene[rows])


def _alone(boxes: Float[Tensor, "n 4"], scene: Int[Tensor, " n"]) -> float:
    if not len(boxes):
        return 0.0
    x, y = ((boxes[:, i] + boxes[:, i + 2]) / 2 for i in (0, 1))
    return axis_code(x) + axis_code(y) - _orders(scene)


def match_parents(table: ObjectTable, child: int, parent: int, relation: str) -> Match:
    """Assign each object of a class to the smallest object of another that it is placed by.

    Args:
        table: The scenes.
        child: Class of the objects.
        parent: Class of their parents.
        relation: One of `RELATIONS`.
    """
    assert table.boxes is not None
    children, parents = ((table.label == c).nonzero()[:, 0] for c in (child, parent))
    of_child, of_parent = pair_rows(table.scene[children], table.scene[parents], table.num_scenes)
    u, size = _relative(table.boxes[children[of_child]], table.boxes[parents[of_parent]], relation)
    fits = ((u >= 0) & (u <= 1)).all(1)
    of_child, of_parent, u, size = of_child[fits], of_parent[fits], u[fits], size[fits]
    # the smallest one, and of several equal ones that with the nearest centre
    cost = size.log().sum(1) + 1e-3 * (u - 0.5).abs().sum(1)
    least = torch.full((len(children),), torch.inf, dtype=cost.dtype).scatter_reduce(0, of_child, cost, "amin")
    pair = torch.where(cost == least[of_child], torch.arange(len(cost)), -1)
    chosen = torch.full((len(children),), -1).scatter_reduce(0, of_child, pair, "amax")
    has = chosen >= 0
    some = chosen[has]
    found = torch.full((len(children),), -1)
    found[has] = parents[of_parent[some]]
    orphans = children[~has]
    code = _alone(table.boxes[orphans], table.scene[orphans]) - _orders(of_parent[some])
    boxes = table.boxes[children[has]]
    for axis, related in ((0, relation != "row"), (1, relation != "column")):
        if related:
            code += axis_code(u[some, axis]) + float(size[some, axis].log().sum())
        else:
            code += axis_code((boxes[:, axis] + boxes[:, axis + 2]) / 2)
    return Match(found, code + math.log(len(RELATIONS)))


def _relative(
    child: Float[Tensor, "n 4"], parent: Float[Tensor, "n 4"], relation: str
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Compute places of objects in units of what they are placed by, 0 to 1 if they belong to it, and these units."""
    size = (parent[:, 2:] - parent[:, :2]).clamp(min=1e-6)
    u = ((child[:, :2] + child[:, 2:]) / 2 - parent[:, :2]) / size
    if relation == "on":
        height = (child[:, 3] - child[:, 1]).clamp(min=1e-6)
        u = torch.stack([u[:, 0], (child[:, 3] - parent[:, 1]) / height + 0.5], 1)
        size = torch.stack([size[:, 0], height], 1)
    for axis, free in ((0, "row"), (1, "column")):
        if relation == free:
            u[:, axis], size[:, axis] = 0.5, 1.0
    return u, size


def pair_rows(
    first: Int[Tensor, " n"], second: Int[Tensor, " m"], num_scenes: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Pair the entries of two ascending columns of scenes that have the same scene."""
    number = second.bincount(minlength=num_scenes)
    start = number.cumsum(0) - number
    repeats = number[first]
    one = torch.arange(len(first)).repeat_interleave(repeats)
    before = (repeats.cumsum(0) - repeats)[one]
    return one, start[first[one]] + torch.arange(len(one)) - before
