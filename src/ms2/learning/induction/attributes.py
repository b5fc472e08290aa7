"""Bounds of places and sizes, which parameter priors begin with."""

from typing import Any

import torch

from ms2.learning.induction.parents import FoundParents

NAMES = ("x", "y", "width", "height")
"""Centre and size of a box, as fractions of the image; the centre relative to the parent's where there is one."""
DIGITS = 4


def attribute_bounds(found: FoundParents) -> dict[str, Any]:
    """Return the least and largest place and size of each class; empty where boxes are unknown.

    A class that nests in another has places relative to its parent, in units of the parent's size: 0 to 1 inside of it.
    """
    table, bounds = found.table, dict[str, Any]()
    if table.boxes is None:
        return bounds
    low, high = table.boxes[:, :2], table.boxes[:, 2:]
    centre, size = (low + high) / 2, high - low
    for c in table.label.unique().tolist():
        for nested in (False, True):
            rows = ((table.label == c) & ((table.parent >= 0) == nested)).nonzero()[:, 0]
            if not len(rows):
                continue
            place = centre[rows]
            if nested:
                above = table.parent[rows]
                place = (place - low[above]) / size[above].clamp(min=1e-6)
            values = torch.cat([place, size[rows]], 1)
            ends = zip(NAMES, values.amin(0).tolist(), values.amax(0).tolist(), strict=True)
            of_class: dict[str, Any] = {name: [round(a, DIGITS), round(b, DIGITS)] for name, a, b in ends}
            if nested:
                parents = sorted({table.classes[k] for k in table.label[table.parent[rows]].tolist()})
                of_class["relative_to"] = parents
            bounds.setdefault(table.classes[c], []).append(of_class)
    return bounds
