"""Write where objects are as settings of a parameter prior: ranges, histograms, what is relative, what keeps apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ms2.learning.induction.codes import PRIOR
from ms2.learning.induction.object_table import ObjectTable
from ms2.learning.induction.parents import BINS, ORDERS, FoundParents, axis_code, pair_rows
from ms2.learning.induction.readings import Scale

POSITION, SIZE = ("x", "y"), ("width", "height")
DIGITS = 4
"""Significant digits of written numbers."""
MAX_OVERLAP, MIN_EXPECTED = 0.1, 10
"""Classes keep apart if their boxes overlap less than this fraction as often as in pairs of scenes put together at
random, where at least so many would overlap."""
RELATED = {"inside": POSITION, "row": ("y",), "column": ("x",), "on": POSITION}
"""By a relation, the positions that are relative to the parent's."""


@dataclass(frozen=True)
class Given:
    """What is known of a world's attributes.

    Attributes:
        ranges: By class, the range of each attribute, places and others.
        scales: By class, how x and y follow from the centre as a fraction of the image.
        environment: Ranges of the attributes of the scene as a whole.
    """

    ranges: Mapping[str, Mapping[str, tuple[float, float]]]
    scales: Mapping[str, Scale]
    environment: Mapping[str, tuple[float, float]]


def placement_settings(found: FoundParents, symbols: Sequence[str], given: Given | None = None) -> dict[str, Any]:
    """Return a `HistogramPlacement` of what was found; empty where places are unknown.

    Args:
        found: The scenes.
        symbols: What the grammar calls the classes that occur, in their order.
        given: Attributes of the renderer; those of boxes, fractions of the image, by default: centre, width and height,
            with differences to the parent in units of its box.
    """
    if found.table.boxes is None or not len(found.table):
        return {}
    settings = _Placement(found, symbols, given).settings()
    return {"class_path": "HistogramPlacement", "init_args": {key: value for key, value in settings.items() if value}}


class _Placement:
    def __init__(self, found: FoundParents, symbols: Sequence[str], given: Given | None) -> None:
        assert found.table.boxes is not None
        self.found, self.table, self.given = found, found.table, given
        low, high = found.table.boxes[:, :2], found.table.boxes[:, 2:]
        self.centre, self.size = (low + high) / 2, high - low
        self.names = dict(zip(found.table.label.unique().tolist(), symbols, strict=True))
        self.relation = {one.child: RELATED[one.relation] for one in found.kept}
        if found.table.parents_known:
            nested = found.table.label[found.table.parent >= 0].unique().tolist()
            self.relation = dict.fromkeys(nested, POSITION)

    def settings(self) -> dict[str, Any]:
        ranges, histograms, offsets, units = (dict[str, dict[str, Any]]() for _ in range(4))
        for c, name in self.names.items():
            ranges[name] = {key: _rounded(ends) for key, ends in self.ranges(c).items()}
            histograms[name], offsets[name], units[name] = {}, {}, {}
            for axis, attribute in enumerate(POSITION):
                if attribute in self.relation.get(c, ()):
                    values = self.offset(c, axis)
                    ends = (float(values.min()), float(values.max()))
                    offsets[name][attribute] = _rounded(ends)
                    if self.given is None:
                        units[name][attribute] = SIZE[axis]
                else:
                    values, ends = self.position(c, axis), self.ranges(c)[attribute]
                histograms[name] |= _histogram(attribute, values, ends)
            if self.given is None:
                for axis, attribute in enumerate(SIZE):
                    values = self.size[self.table.label == c, axis]
                    histograms[name] |= _histogram(attribute, values, ranges[name][attribute])
        ordered = {self.names[one.parent]: self.axis_of_order for one in self.found.kept if self.axis_of_order}
        extents = {name: _rounded(self.extent(c)) for c, name in self.names.items() if min(self.extent(c)) > 0}
        apart = [[self.names[a], self.names[b]] for a, b in pairs_apart(self.table)]
        return {
            "ranges": ranges,
            **{
                key: {k: v for k, v in some.items() if v}
                for key, some in zip(("histograms", "offsets", "units"), (histograms, offsets, units), strict=True)
            },
            "environment": {key: [*ends] for key, ends in self.given.environment.items()} if self.given else {},
            "extents": {name: extents[name] for pair in apart for name in pair},
            "apart": apart,
            "ascending": ordered,
        }

    @property
    def axis_of_order(self) -> str | None:
        """The position by which siblings are numbered."""
        return {ORDERS[0]: "y", ORDERS[1]: "x"}.get(self.found.order)

    def ranges(self, c: int) -> dict[str, tuple[float, float]]:
        """Ranges of a class's attributes: those given, or those seen."""
        if self.given is not None:
            return dict(self.given.ranges[self.names[c]])
        rows = self.table.label == c
        values = torch.cat([self.centre[rows], self.size[rows]], 1)
        ends = zip(values.amin(0).tolist(), values.amax(0).tolist(), strict=True)
        return dict(zip((*POSITION, *SIZE), ends, strict=True))

    def scale(self, c: int, axis: int) -> tuple[float, float]:
        """Start and width of a position."""
        if self.given is None:
            return 0.0, 1.0
        scale = self.given.scales[self.names[c]]
        return scale.start[axis], scale.width[axis]

    def extent(self, c: int) -> tuple[float, float]:
        """Width and height of a typical box, in units of x and y; where x never varies, as wide as they come."""
        sizes = self.size[self.table.label == c].median(0).values.tolist()
        widths = [self.scale(c, axis)[1] or max(self.scale(k, axis)[1] for k in self.names) for axis in (0, 1)]
        return sizes[0] * widths[0], sizes[1] * widths[1]

    def position(self, c: int, axis: int) -> Float[Tensor, " n"]:
        """Positions of the objects without a parent, of all if all have one."""
        rows = self.table.label == c
        top = rows & (self.table.parent < 0)
        start, width = self.scale(c, axis)
        return start + width * self.centre[top if bool(top.any()) else rows, axis]

    def offset(self, c: int, axis: int) -> Float[Tensor, " n"]:
        """Differences of positions to the parent's: in units of its box, or of the attribute."""
        rows = ((self.table.label == c) & (self.table.parent >= 0)).nonzero()[:, 0]
        above = self.table.parent[rows]
        apart = self.centre[rows, axis] - self.centre[above, axis]
        return apart / self.size[above, axis].clamp(min=1e-6) if self.given is None else apart * self.scale(c, axis)[1]


def _histogram(attribute: str, values: Float[Tensor, " n"], ends: Sequence[float]) -> dict[str, list[float]]:
    """Return the histogram that tells values with the fewest nats, by the attribute's name; none of a single bin."""
    low, high = ends
    if not high > low or not len(values):
        return {}
    share = ((values - low) / (high - low)).clamp(0, 1)
    bins = min(BINS, key=lambda number: axis_code(share, (number,)))
    if bins == 1:
        return {}
    counts = (share * bins).long().clamp(max=bins - 1).bincount(minlength=bins).double() + PRIOR
    return {attribute: _rounded((counts / counts.sum()).tolist())}


def pairs_apart(table: ObjectTable) -> Iterator[tuple[int, int]]:
    """Yield pairs of classes that keep apart: whose boxes overlap far less than those of different scenes do."""
    classes = table.label.unique().tolist()
    for i, a in enumerate(classes):
        for b in classes[i:]:
            found, expected = _overlaps(table, a, b, 0), _overlaps(table, a, b, 1)
            if expected >= MIN_EXPECTED and found <= MAX_OVERLAP * expected:
                yield a, b


def _overlaps(table: ObjectTable, a: int, b: int, shift: int) -> float:
    """Count pairs of overlapping boxes of two classes, of each scene and the one that is ``shift`` scenes further."""
    assert table.boxes is not None
    first, second = ((table.label == c).nonzero()[:, 0] for c in (a, b))
    moved = (table.scene[second] - shift) % table.num_scenes
    order = moved.argsort(stable=True)
    of_first, of_second = pair_rows(table.scene[first], moved[order], table.num_scenes)
    rows, others = first[of_first], second[order][of_second]
    if a == b:
        rows, others = (side[rows < others] if not shift else side for side in (rows, others))
    overlap = _overlapping(table.boxes[rows], table.boxes[others])
    return float(overlap.sum()) / (2 if a == b and shift else 1)


def _overlapping(one: Float[Tensor, "n 4"], other: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
    return ((one[:, :2] < other[:, 2:]) & (other[:, :2] < one[:, 2:])).all(1)


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
