"""Structure and parameter priors of Aerial 2D, and those of its target (section 4.2). Lengths are in metres."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import MAX_FLOAT, Bounds, Count, Fraction, NonNegativeFloat, PositiveFloat
from ms2.core.errors import UserError
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import ListLengthPrior
from ms2.scene.batch import SceneBatch
from ms2.worlds.aerial2d.declaration import (
    AERIAL_CLASSES,
    CAR,
    ENVIRONMENT_ATTRIBUTES,
    HOUSE,
    LANE_WIDTH,
    MIN_SPACING,
    MUTABLE_ATTRIBUTES,
    ROAD,
    ROAD_WIDTH,
    SCENERY,
    TREE,
    WORLD_CLASSES,
)
from ms2.worlds.aerial2d.lanes import Lanes, RoadMembership, road_membership
from ms2.worlds.environment import sample_environment, sampled_ranges

MAX_PLACEMENT_TRIES = 8
"""Number of positions tried for a house or tree before it is dropped."""


MeanCars = Annotated[float, Bounds(gt=0, le=100)]
"""Mean number of cars on a road."""
RoadDistance = Annotated[float, Bounds(ge=ROAD_WIDTH, le=MAX_FLOAT)]
"""Distance between the centre lines of neighbouring roads in metres."""


class UniformTraffic(ListLengthPrior):
    """The paper's structure prior: uniform numbers of roads, and of cars on each road.

    Args:
        max_roads: Maximum number of roads per scene.
        max_cars: Maximum number of cars per road.
    """

    def __init__(self, max_roads: Count = 4, max_cars: Count = 8) -> None:
        super().__init__(lengths={"Roads": [1.0] * (max_roads + 1), "Cars": [1.0] * (max_cars + 1)})


class BusyFirstRoad(ListLengthPrior):
    """The paper's target: Poisson car counts with a larger mean on the first road, which no PCFG can express.

    Args:
        road_weights: Weights of 1, 2, 3, ... roads.
        mean_first: Mean number of cars on the first road (Poisson).
        mean_others: Mean number of cars on every other road (Poisson).
    """

    def __init__(
        self,
        road_weights: tuple[NonNegativeFloat, ...] = (0.05, 0.15, 0.4, 0.4),
        mean_first: MeanCars = 9.0,
        mean_others: MeanCars = 3.0,
    ) -> None:
        super().__init__(lengths={"Roads": [0.0, *road_weights], "Cars": [_poisson(mean_first), _poisson(mean_others)]})


def _poisson(mean: float) -> list[float]:
    """Compute Poisson probabilities, truncated where less than 1e-6 remains."""
    p = [math.exp(-mean)]
    while sum(p) < 1 - 1e-6:
        p.append(p[-1] * mean / len(p))
    return p


class ParallelRoads(ParameterPrior):
    """Base class of parameter priors with parallel roads, cars on them, and houses and trees beside them.

    Subclasses sample the cars' positions. Of a car, its ``spacing`` may be learned, from which its position is derived
    (see `Lanes`), its lane, and its heading.

    Args:
        extent: Side of the visible square in metres; must equal the renderer's.
        road_distance: Range of the distance between the centre lines of neighbouring roads, in metres. Where roads
            would leave the square, all distances of that scene are scaled down by one factor.
        max_houses: Maximum number of houses; houses that do not fit are dropped.
        max_trees: Maximum number of trees; trees that do not fit are dropped.
    """

    scenery = SCENERY
    mutable = MUTABLE_ATTRIBUTES
    derived_attributes: Mapping[str, str] = {"spacing": "x"}

    def __init__(
        self,
        extent: PositiveFloat = 64.0,
        road_distance: tuple[RoadDistance, RoadDistance] = (10.0, 17.0),
        max_houses: Count = 6,
        max_trees: Count = 14,
    ) -> None:
        if road_distance[0] > road_distance[1]:
            raise UserError(f"road_distance must be two values in ascending order, not {road_distance}")
        for setting, value, name in (("max_houses", max_houses, "house"), ("max_trees", max_trees, "tree")):
            limit = int(extent / _plot(name))
            if value > limit:
                raise UserError(f"{setting} must lie between 0 and {limit} on {extent} m, not be {value}")
        self.extent, self.road_distance = extent, road_distance
        self.max_houses, self.max_trees = max_houses, max_trees

    @abstractmethod
    def sample_cars(self, roads_of: RoadMembership, generator: Generator) -> "Placements":
        """Sample x along the road, y from its centre line, and angle for all entries; those of cars are used."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Sample placements of roads and cars, and add houses and trees."""
        roads_of = road_membership(scenes)
        roads = self._roads(roads_of, generator)
        houses = self._beside(roads, self.max_houses, "house", None, generator)
        trees = self._beside(roads, self.max_trees, "tree", houses, generator)
        cars = self._on_roads(roads_of, roads, generator)
        x, y, angle = (torch.cat(column, 1) for column in list(zip(cars, houses, trees, strict=True))[:3])
        scenery = [torch.where(part.used, index, -1) for part, index in ((houses, HOUSE), (trees, TREE))]
        classes = torch.cat([scenes.classes, *scenery], 1)
        added = (0, self.max_houses + self.max_trees)
        low, high = _size_range(x.device)[:, :, classes]  # index -1 of unused entries is the last class
        size, (model, colour) = torch.rand(4, *x.shape, generator=generator, device=x.device).split(2)
        length, width = low + (high - low) * size
        lanes = Lanes.from_scenes(scenes.with_attributes(x=cars.x, y=cars.y), self.extent)
        attributes = {
            "x": x,
            "y": y,
            "angle": angle,
            "length": torch.where(classes == ROAD, self.extent, length),
            "width": width,
            "model": model,
            "colour": colour,
            "spacing": F.pad(lanes.spacing(cars.x), added),
        }
        environment = sample_environment(sampled_ranges(ENVIRONMENT_ATTRIBUTES), len(scenes), generator)
        complete = SceneBatch(classes, F.pad(scenes.parents, added, value=-1), attributes, environment)
        return complete.compact(trim=False)  # the number of columns that are used would have to be waited for

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """Compute the cars' positions from their spacings, keeping their order on the lane."""
        lanes = Lanes.from_scenes(scenes, self.extent)
        positions = lanes.positions(scenes.attributes["spacing"])
        return scenes.with_attributes(x=torch.where(scenes.classes == CAR, positions, scenes.attributes["x"]))

    def _roads(self, roads_of: RoadMembership, generator: Generator) -> Float[Tensor, "b n"]:
        """Sample the centre lines of the roads from top to bottom; infinite for entries beyond the last road."""
        low, high = self.road_distance
        draw = torch.rand(roads_of.road.shape, generator=generator, device=roads_of.road.device)
        index = torch.arange(draw.shape[1], device=draw.device)
        # the first road may be at the edge
        below = ((high - low) * draw + low * (index > 0)).cumsum(1)
        last = below.gather(1, (roads_of.roads - 1).clamp(min=0)[:, None])
        middle = ROAD_WIDTH / 2 + below * ((self.extent - ROAD_WIDTH) / last).clamp(max=1)
        return torch.where(index < roads_of.roads[:, None], middle, torch.inf)

    def _on_roads(self, roads_of: RoadMembership, roads: Float[Tensor, "b n"], generator: Generator) -> "Placements":
        """Place roads across the whole square, and the cars on them."""
        cars = self.sample_cars(roads_of, generator)
        middle = roads.gather(1, roads_of.road).nan_to_num(posinf=0.0)  # of a scene without roads
        return Placements(
            torch.where(roads_of.is_car, cars.x, self.extent / 2),
            torch.where(roads_of.is_car, middle + cars.y, middle),
            torch.where(roads_of.is_car, cars.angle, 0.0),
            cars.used,
        )

    def _beside(
        self,
        roads: Float[Tensor, "b n"],
        number: int,
        name: str,
        others: "Placements | None",
        generator: Generator,
    ) -> "Placements":
        """Sample up to ``number`` placements of a class beside roads, each at another x, clear of ``others``."""
        batch, device = len(roads), roads.device
        plot = _plot(name)
        columns = int(self.extent / plot)
        tries, column, angle, wanted = torch.rand(
            batch, number * (MAX_PLACEMENT_TRIES + 1) + columns + 1, generator=generator, device=device
        ).split([number * MAX_PLACEMENT_TRIES, columns, number, 1], 1)
        x = (column.argsort(1)[:, :number] + 0.5) * (self.extent / columns)
        y = plot / 2 + (self.extent - plot) * tries
        # the nearest roads above and below, in the order of which roads are
        below = torch.searchsorted(roads, y).clamp(max=roads.shape[1] - 1)
        near = (y - roads.gather(1, (below - 1).clamp(min=0))).abs().minimum((y - roads.gather(1, below)).abs())
        tried = (number, MAX_PLACEMENT_TRIES)
        y, free = y.unflatten(1, tried), (near > (ROAD_WIDTH + plot * 0.75) / 2).unflatten(1, tried)
        if others is not None:
            near_x = (x[:, :, None] - others.x[:, None]).abs() < (_plot("house") + plot) / 2
            near_y = (y[..., None] - others.y[:, None, None]).abs() < (_plot("house") * 0.75 + plot) / 2
            free &= ~(near_y & (near_x & others.used[:, None])[:, :, None]).any(-1)
        chosen = y.gather(2, free.long().argmax(2, keepdim=True))[..., 0]
        used = torch.arange(number, device=device) < (wanted * (number + 1)).floor()
        return Placements(x, chosen, _angle(angle, along_roads=others is None), used & free.any(2))


class Placements(NamedTuple):
    """Positions in metres, angles in radians, and validity of k objects."""

    x: Float[Tensor, "b k"]
    y: Float[Tensor, "b k"]
    angle: Float[Tensor, "b k"]
    used: Bool[Tensor, "b k"]


def _angle(draw: Float[Tensor, "b k"], along_roads: bool) -> Float[Tensor, "b k"]:
    """Map uniform draws to any angle, or to angles along the roads within three degrees."""
    if not along_roads:
        return (2 * draw - 1) * math.pi
    tilt = 0.05 * (4 * (draw * 2 % 1) - 2)
    return torch.where(draw < 0.5, tilt, torch.where(tilt > 0, tilt - math.pi, tilt + math.pi))


class ScatteredCars(ParallelRoads):
    """The paper's parameter prior: uniform position on the road, uniform angle.

    Positions are uniform among arrangements without overlap on a lane, since hidden cars could not be counted: n sorted
    uniform draws from the free length, each shifted by the cars before it.

    Args:
        extent: Side of the visible square in metres; must equal the renderer's.
        road_distance: Range of the distance between the centre lines of neighbouring roads, in metres. Where roads
            would leave the square, all distances of that scene are scaled down by one factor.
        max_houses: Maximum number of houses; houses that do not fit are dropped.
        max_trees: Maximum number of trees; trees that do not fit are dropped.
        aligned_fraction: Fraction of scenes in which cars face along their lane. 0 in the paper; extractors trained
            with some count aligned cars better.
    """

    def __init__(
        self,
        extent: PositiveFloat = 64.0,
        road_distance: tuple[RoadDistance, RoadDistance] = (10.0, 17.0),
        max_houses: Count = 6,
        max_trees: Count = 14,
        aligned_fraction: Fraction = 0.0,
    ) -> None:
        super().__init__(extent, road_distance, max_houses, max_trees)
        self.aligned_fraction = aligned_fraction

    def sample_cars(self, roads_of: RoadMembership, generator: Generator) -> Placements:
        """Sample lane, position and heading of each car uniformly."""
        shape, device = roads_of.road.shape, roads_of.road.device
        draws = torch.rand(5, *shape, generator=generator, device=device)
        lane = self._sides(roads_of, *draws[:2])
        draw, shift, turn = draws[2], *(2 * draws[3:] - 1)
        lanes = Lanes.sort_in_lanes(torch.where(roads_of.is_car, 2 * roads_of.road + lane, -1), draw, self.extent)
        x = lanes.starts() + draw * lanes.room
        y = (lane - 0.5) * LANE_WIDTH + 0.2 * shift
        aligned = torch.rand(shape[0], 1, generator=generator, device=device) < self.aligned_fraction
        return Placements(x, y, torch.where(aligned, _along(lane, turn), math.pi * turn), roads_of.is_car)

    def _sides(
        self, roads_of: RoadMembership, share: Float[Tensor, "b n"], key: Float[Tensor, "b n"]
    ) -> Int[Tensor, "b n"]:
        """Compute the side of the road of each car: uniform among all ways to park them in as many places on either.

        Args:
            roads_of: The road of each car.
            share: Uniform draws; that of a road's entry says how many of its cars are on the first side.
            key: Uniform draws by which a road's cars are sorted.
        """
        places = int(self.extent / MIN_SPACING)  # on a lane
        share = share.gather(1, roads_of.road)
        number = (share[..., None] > _first_side(places, share.device)[roads_of.cars.clamp(max=2 * places)]).sum(2)
        order = torch.where(roads_of.is_car, roads_of.road + key, torch.inf).argsort(1)
        index = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, index) - roads_of.cars_before
        return (rank % (2 * places) >= number).long()


class SpacedCars(ParallelRoads):
    """The target's parameter prior: cars evenly spaced with jitter, on the right-hand lane of their direction."""

    def sample_cars(self, roads_of: RoadMembership, generator: Generator) -> Placements:
        """Place cars alternately on both lanes, evenly spaced with jitter."""
        first, *draws = torch.rand(4, *roads_of.road.shape, generator=generator, device=roads_of.road.device)
        lane = (roads_of.car_index + (first < 0.5).gather(1, roads_of.road)) % 2
        free = self.extent - MIN_SPACING
        spacing = free / ((roads_of.cars + 1) // 2).clamp(min=1)
        shift, drift, tilt = (2 * draw - 1 for draw in draws)
        ahead = (roads_of.car_index // 2 + 0.5) * spacing + shift * ((spacing - MIN_SPACING) / 2).clamp(min=0)
        return Placements(
            MIN_SPACING / 2 + ahead, (lane - 0.5) * LANE_WIDTH + 0.2 * drift, _along(lane, tilt), roads_of.is_car
        )


def _plot(name: str) -> float:
    plot = AERIAL_CLASSES[name].plot
    assert plot is not None
    return plot


@lru_cache(maxsize=8)
def _size_range(device: torch.device) -> Float[Tensor, "2 2 k"]:
    """Return the minimum and maximum of length and width, by class."""
    classes = [AERIAL_CLASSES[name] for name in WORLD_CLASSES]
    return torch.tensor([cls.size_range for cls in classes]).permute(1, 2, 0).contiguous().to(device)


@lru_cache(maxsize=8)
def _first_side(places: int, device: torch.device) -> Float[Tensor, "m k"]:
    """Return, by the number of cars, the probabilities that at most 0, 1, ... of them are on the first side of a road.

    Cars take random places, of which there are as many on either side: a hypergeometric distribution.
    """
    ways = [
        [math.comb(places, k) * math.comb(places, cars - k) if k <= cars else 0 for k in range(places)]
        for cars in range(2 * places + 1)
    ]
    total = [math.comb(2 * places, cars) for cars in range(2 * places + 1)]
    below = [[sum(row[: k + 1]) / all_ways for k in range(places)] for row, all_ways in zip(ways, total, strict=True)]
    return torch.tensor(below, device=device)


def _along(lane: Int[Tensor, "b n"], tilt: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Compute headings of right-hand traffic, up to two degrees off the lane by ``tilt``; y points down."""
    return torch.where(lane == 1, 0.03 * tilt, math.pi * torch.where(tilt > 0, 1, -1) - 0.03 * tilt)
