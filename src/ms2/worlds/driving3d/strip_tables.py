"""Lateral strips of a street, and what classes are placed on them, as tables on a device. Metres."""

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.worlds.driving3d.declaration import OBJECT_CLASSES

STRIPS = ("lane", "outer", "edge", "parking", "kerb", "walk", "green", "front", "back")
"""Strips along the street from its middle outwards, on either side; ``outer`` is the outer of two lanes."""
VEHICLE_STRIPS = ("lane", "outer", "parking")
"""Strips between whose edges vehicles must fit; elsewhere objects that are wider than their strip extend beyond it."""
ROADSIDE_STRIPS = ("kerb", "walk", "green", "front", "back")
"""Strips that move outwards where objects on the one before are wider than it."""
BUILDING_STRIPS = ("front", "back")
OFF_STREET_WEIGHTS = {"green": 1.0, "front": 1.0, "back": 2.0}
"""Weights of strips for vehicles and people off the street."""
EGO_LANE_WEIGHT = 0.3
"""Weight of the camera's own lane relative to the oncoming one: vehicles ahead occlude the rest of the street."""
BUILDING_SETBACK = 1.5
"""Maximum distance of house fronts from the inner edge of their strip in metres."""
NO_STRIP = 1e30
"""Inverse weight of a strip on which nothing is placed."""


class StripTables(NamedTuple):
    """Properties of strips and classes on a device.

    Attributes:
        side: -1 for strips on the left, 1 for those on the right.
        building: Which strips are `BUILDING_STRIPS`.
        fitted: Which are `VEHICLE_STRIPS`.
        lane: Which are lanes.
        edge: Which are the edge of the road.
        gap: Distance of each from the next one outwards, if objects are wider than it.
        row: Row of each strip, on roads of two lanes and of four.
        spacing: Minimum length that an object of each class takes up.
        candidate: Strips that each class may be placed on, and last, those for what is off the street.
        inverse_weight: Inverse weights of these: equal on both sides, but for the camera's own lane.
    """

    side: Float[Tensor, " s"]
    building: Bool[Tensor, " s"]
    fitted: Bool[Tensor, " s"]
    lane: Bool[Tensor, " s"]
    edge: Bool[Tensor, " s"]
    gap: Float[Tensor, " s"]
    row: Int[Tensor, "2 s"]
    spacing: Float[Tensor, " k"]
    candidate: Int[Tensor, "k1 c"]
    inverse_weight: Float[Tensor, "k1 c"]


@lru_cache(maxsize=8)
def strip_tables(device: torch.device) -> StripTables:
    """Make the tables on a device."""

    def among(*names: str) -> Bool[Tensor, " s"]:
        return torch.tensor([name in names for name in STRIPS] * 2)

    own_lane = len(STRIPS) + STRIPS.index("lane")
    weights = torch.tensor(
        [
            [strips.get(name, 0.0) for name in STRIPS] * 2
            for strips in (*(cls.strips for cls in OBJECT_CLASSES.values()), OFF_STREET_WEIGHTS)
        ]
    )
    weights[:, own_lane] *= EGO_LANE_WEIGHT
    most = int((weights > 0).sum(1).max())
    weight, candidate = weights.sort(dim=1, descending=True, stable=True)
    rows = torch.arange(2 * len(STRIPS)).repeat(2, 1)
    for side in (0, len(STRIPS)):
        for lanes, beside in enumerate(("lane", "outer")):
            rows[lanes, side + STRIPS.index("edge")] = side + STRIPS.index(beside)
    tables = StripTables(
        torch.tensor([-1.0, 1.0]).repeat_interleave(len(STRIPS)),
        among(*BUILDING_STRIPS),
        among(*VEHICLE_STRIPS),
        among("lane", "outer"),
        among("edge"),
        0.1 + BUILDING_SETBACK * among("front"),
        rows,
        torch.tensor([cls.spacing for cls in OBJECT_CLASSES.values()]),
        candidate[:, :most].contiguous(),
        torch.where(weight > 0, 1 / weight, NO_STRIP)[:, :most].contiguous(),
    )
    return StripTables(*(table.to(device) for table in tables))


@lru_cache(maxsize=64)
def class_flags(flag: str, device: torch.device) -> Bool[Tensor, " k"]:
    """Return which classes have a boolean property of `ObjectClass`."""
    return torch.tensor([getattr(cls, flag) for cls in OBJECT_CLASSES.values()], device=device)
