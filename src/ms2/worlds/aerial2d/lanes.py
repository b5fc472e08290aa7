"""Roads and lanes that cars are on, and the parameterisation of positions on a lane. Lengths are in metres."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.scene.batch import SceneBatch
from ms2.worlds.aerial2d.declaration import CAR, MIN_SPACING, ROAD


class RoadMembership(NamedTuple):
    """Road of each of n objects.

    Attributes:
        is_car: Whether the object is a car.
        road: Index of the road that the object is, or is on.
        car_index: Index of a car among those of its road.
        cars: Number of cars on that road.
        cars_before: Number of cars on the roads before it.
        roads: Number of roads in the scene.
    """

    is_car: Bool[Tensor, "b n"]
    road: Int[Tensor, "b n"]
    car_index: Int[Tensor, "b n"]
    cars: Int[Tensor, "b n"]
    cars_before: Int[Tensor, "b n"]
    roads: Int[Tensor, " b"]


def road_membership(scenes: SceneBatch) -> RoadMembership:
    """Determine the road of each object, in the grammar's order: each road before its cars."""
    is_car, above = scenes.classes == CAR, scenes.parents.clamp(min=0)
    own = (scenes.classes == ROAD).cumsum(1) - 1
    road = torch.where(is_car, own.gather(1, above), own).clamp(min=0)
    number = is_car.cumsum(1)
    before = number.gather(1, above)
    index = torch.where(is_car, number - 1 - before, 0)
    cars = torch.zeros_like(road).scatter_add_(1, road, is_car.long()).gather(1, road)
    return RoadMembership(is_car, road, index, cars, before, own.amax(1) + 1)


MIN_FREE_FRACTION = 1e-6
"""Minimum fraction of a lane's free length (that no car needs) which a car leaves to those after it."""
BETWEEN_LANES = 1e6
"""Offset that keeps positions on different lanes apart, in doubles."""


class Lanes(NamedTuple):
    """Cars per lane, with positions parameterised by spacings in [0, 1].

    Of m cars placed uniformly in the remaining free length, the first takes at most a fraction s of it with probability
    1 - (1 - s)^m. That probability is a car's ``spacing``: for uniformly placed cars it is uniform and independent of
    all others (Rényi 1953); for evenly spaced cars it is 0.39 to 0.5 for the first and 0.63 to 0.67 for all others.
    Cars do not overlap for any spacings, unless the lane is too short for their number.

    Attributes:
        lane: Number of the lane of each car; -1 for what is no car.
        order: Objects ordered by lane, and by position on each.
        place: Place of each object in that order.
        first: Place of the first car on its lane.
        left: Number of cars from each to the end of its lane, itself included.
        pitch: Length of lane that each car takes up with its gap.
        room: Free length of the lane.
    """

    lane: Int[Tensor, "b n"]
    order: Int[Tensor, "b n"]
    place: Int[Tensor, "b n"]
    first: Int[Tensor, "b n"]
    left: Int[Tensor, "b n"]
    pitch: Float[Tensor, "b n"]
    room: Float[Tensor, "b n"]

    @classmethod
    def from_scenes(cls, scenes: SceneBatch, extent: float) -> "Lanes":
        """Assign the cars of scenes to lanes by their side of the road."""
        x, y = scenes.attributes["x"].detach(), scenes.attributes["y"].detach()
        side = y > scenes.parent_values(y)
        return cls.sort_in_lanes(torch.where(scenes.classes == CAR, 2 * scenes.parents + side, -1), x, extent)

    @classmethod
    def sort_in_lanes(cls, lane: Int[Tensor, "b n"], x: Float[Tensor, "b n"], extent: float) -> "Lanes":
        """Sort cars on numbered lanes by x; lane -1 marks objects that are not cars."""
        by_x = x.argsort(dim=1, stable=True)
        order = by_x.gather(1, lane.gather(1, by_x).argsort(dim=1, stable=True))
        index = torch.arange(x.shape[1], device=x.device).expand_as(order)
        place = torch.empty_like(order).scatter_(1, order, index)
        on = lane.gather(1, order)
        starts = torch.where(torch.nn.functional.pad(on[:, 1:] != on[:, :-1], (1, 0)), index, 0).cummax(1).values
        number = torch.zeros_like(order).scatter_add_(1, starts, torch.ones_like(order)).gather(1, starts)
        first, number = starts.gather(1, place), torch.where(lane >= 0, number.gather(1, place), 0)
        pitch = (extent / number.clamp(min=1)).clamp(max=MIN_SPACING)  # shorter on an overfull lane
        return cls(lane, order, place, first, first + number - place, pitch, (extent - number * pitch).clamp(min=0))

    def starts(self) -> Float[Tensor, "b n"]:
        """Compute the length of lane that the cars before each take up, and half of what it takes itself."""
        return (self.place - self.first + 0.5) * self.pitch

    def positions(self, spacing: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute the positions of cars along the road from their spacings; differentiable."""
        # log of the fraction of the free length that a car leaves
        kept = torch.log1p(-spacing.clamp(0, 1 - MIN_FREE_FRACTION)) / self.left.clamp(min=1)
        ordered = torch.where(self.lane >= 0, kept, 0.0).gather(1, self.order)
        total = ordered.cumsum(1)
        on_lane = total.gather(1, self.place) - (total - ordered).gather(1, self.first)
        return self.starts() - torch.expm1(on_lane) * self.room

    def spacing(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute spacings from positions x, the inverse of `positions`; 0 where cars fill their lane."""
        taken = x - self.starts()
        apart = BETWEEN_LANES * self.lane.double()
        farthest = (taken + apart).gather(1, self.order).cummax(1).values.gather(1, (self.place - 1).clamp(min=0))
        before = torch.where(self.place > self.first, (farthest - apart).clamp(min=0), 0.0).to(x.dtype)
        fraction = (taken - before) / (self.room - before).clamp(min=MIN_FREE_FRACTION)
        spacing = 1 - (1 - fraction.clamp(0, 1)) ** self.left
        return torch.where((self.lane >= 0) & (self.room > 0), spacing, 0.0)
