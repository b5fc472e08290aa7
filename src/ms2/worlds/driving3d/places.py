"""Places in a street: where its cars, houses and trees are, by attributes of the street that can be learned. Metres."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.worlds.driving3d.declaration import OBJECT_CLASSES, OBJECTS, PLACE_ATTRIBUTES
from ms2.worlds.driving3d.strip_tables import NO_STRIP, STRIPS, class_flags, strip_tables

MAX_INVERSE_WEIGHT = 1e6
"""Inverse weight of strips that a share of 0 excludes: they are used only where the others are full."""


class Places(NamedTuple):
    """Attributes of b streets by which objects are placed, see `PLACE_ATTRIBUTES`.

    Attributes:
        parked: Share of cars that are parked, where there is a parking strip; the others are in lanes.
        parking_strips: Probability of a parking strip on either side.
        parking_distance: Mean distance ahead of the camera at which the rows of parked cars begin.
        parking_gap: Mean gap between parked cars, beside a quarter of a metre.
        own_lane: Share of the traffic that heads away from the camera, on its side.
        traffic_distance: Distance ahead of the camera at which traffic begins.
        lane_width: Width of a lane.
        pavement_width: Mean width of a pavement, where there is one.
        setback: Mean width of the green strip between pavement and house fronts.
        street_trees: Share of trees along the street, in front of the houses.
    """

    parked: Float[Tensor, " b"]
    parking_strips: Float[Tensor, " b"]
    parking_distance: Float[Tensor, " b"]
    parking_gap: Float[Tensor, " b"]
    own_lane: Float[Tensor, " b"]
    traffic_distance: Float[Tensor, " b"]
    lane_width: Float[Tensor, " b"]
    pavement_width: Float[Tensor, " b"]
    setback: Float[Tensor, " b"]
    street_trees: Float[Tensor, " b"]

    @classmethod
    def from_environment(cls, environment: Mapping[str, Tensor]) -> "Places":
        """Select the attributes of places."""
        return cls(**{place.attribute.name: environment[place.attribute.name] for place in PLACE_ATTRIBUTES})

    def spacing(self, object_class: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Return the minimum length that objects take up: none for cars, whose gaps are attributes."""
        table = strip_tables(object_class.device).spacing.clone()
        table[OBJECTS.index("car")] = 0.0
        return table[object_class]

    def inverse_weights(self, exists: Bool[Tensor, "b s"], four_lanes: Bool[Tensor, " b"]) -> Float[Tensor, "b k1 c"]:
        """Compute the inverse weight of each class's candidate strips, as `StripTables.inverse_weight`, by street.

        Args:
            exists: Which strips have any width.
            four_lanes: Which streets have four lanes.
        """
        tables = strip_tables(exists.device)
        inverse = tables.inverse_weight.repeat(len(exists), 1, 1)
        traffic = self._traffic(four_lanes)
        parking = self._among("parking") & exists
        number = parking.sum(1, keepdim=True)
        parked = torch.where(number > 0, self.parked[:, None], 0.0)
        car = (1 - parked) * traffic + parked * parking / number.clamp(min=1)
        for name, weight in (("car", car), ("truck", traffic), ("tree", self._trees())):
            k = OBJECTS.index(name)
            own = tables.candidate[k].expand(len(weight), -1)
            each = 1 / weight.gather(1, own).clamp(min=1 / MAX_INVERSE_WEIGHT)
            inverse[:, k] = torch.where(tables.inverse_weight[k] < NO_STRIP, each, NO_STRIP)
        return inverse

    def along(
        self,
        draw: Float[Tensor, "b n"],
        start: Float[Tensor, "b s"],
        strip: Int[Tensor, "b n"],
        object_class: Int[Tensor, "b n"],
        begin: Float[Tensor, "b n"],
        free: Float[Tensor, "b n"],
        number: Float[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """Compute positions of objects in the free length of their row, as fractions of it.

        Traffic begins at its distance. Parked cars take as much of their row as their gaps need, from a distance that
        is uniform around its mean.

        Args:
            draw: Uniform draw of each object.
            start: Uniform draw of each row, for the distance at which its parked cars begin.
            strip: Strip of each object.
            object_class: Index of its class in `OBJECTS`.
            begin: Distance at which its row begins.
            free: Free length of its row.
            number: Number of objects on its row.
        """
        tables, room = strip_tables(strip.device), free.clamp(min=1e-3)
        is_vehicle = class_flags("vehicle_or_person", strip.device)[object_class]
        first = ((self.traffic_distance[:, None] - begin) / room).clamp(0, 0.99)
        draw = torch.where(tables.lane[strip] & is_vehicle, first + (1 - first) * draw, draw)
        part = (self.parking_gap[:, None] * (number + 1) / room).clamp(max=1)
        parked = self._among("parking")[strip]
        distance = self.parking_distance[:, None] * (0.5 + start.gather(1, strip))
        first = ((distance - begin) / room).clamp(min=0).minimum(1 - part)
        return torch.where(parked, first + part * draw, draw)

    def _traffic(self, four_lanes: Bool[Tensor, " b"]) -> Float[Tensor, "b s"]:
        """Compute the weight of each lane."""
        right = strip_tables(four_lanes.device).side > 0
        share = torch.where(right, self.own_lane[:, None], 1 - self.own_lane[:, None])
        lanes = 1 + four_lanes.float()[:, None]
        on = self._among("lane") | (self._among("outer") & four_lanes[:, None])
        return share / lanes * on

    def _trees(self) -> Float[Tensor, "b s"]:
        """Compute the weight of each strip for trees."""
        strips = OBJECT_CLASSES["tree"].strips
        weight = tree_weights(self.street_trees.device)
        behind = self._among("back")
        front = strips["kerb"] + strips["green"]
        share = self.street_trees[:, None]
        return weight * torch.where(behind, (1 - share) / strips["back"], share / front)

    def _among(self, name: str) -> Bool[Tensor, " s"]:
        return named_strips(name, self.parked.device)


@lru_cache(maxsize=32)
def named_strips(name: str, device: torch.device) -> Bool[Tensor, " s"]:
    """Return which strips have a name; kept, as copying it to a device would wait."""
    return torch.tensor([strip == name for strip in STRIPS] * 2, device=device)


@lru_cache(maxsize=4)
def tree_weights(device: torch.device) -> Float[Tensor, " s"]:
    """Return the weight of each strip for trees by default; kept, as `named_strips`."""
    strips = OBJECT_CLASSES["tree"].strips
    return torch.tensor([strips.get(name, 0.0) for name in STRIPS] * 2, device=device) / 2
