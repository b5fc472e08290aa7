"""Structure and parameter priors of Aerial 2D, and those of its target (section 4.2). Lengths are in metres."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import MAX_FLOAT, Bounds, Count, Fraction, NonNegativeFloat, PositiveFloat
from ms2.core.errors import UserError
from ms2.priors.parameters import ParameterPrior, sample_uniform
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


class RoadMembership(NamedTuple):
    """Road of each of n objects.

    Attributes:
        is_car: Whether the object is a car.
        road: Index of the road that the object is, or is on.
        car_index: Index of a car among those of its road.
        cars: Number of cars on that road.
        roads: Number of roads in the scene.
    """

    is_car: Bool[Tensor, "b n"]
    road: Int[Tensor, "b n"]
    car_index: Int[Tensor, "b n"]
    cars: Int[Tensor, "b n"]
    roads: Int[Tensor, " b"]

    @property
    def max_roads_per_scene(self) -> int:
        """Return the maximum number of roads over scenes, at least 1."""
        return max(1, int(self.roads.max())) if len(self.roads) else 1


def road_membership(scenes: SceneBatch) -> RoadMembership:
    """Determine the road of each object, in the grammar's order: each road before its cars."""
    is_car, above = scenes.classes == CAR, scenes.parents.clamp(min=0)
    own = (scenes.classes == ROAD).cumsum(1) - 1
    road = torch.where(is_car, own.gather(1, above), own).clamp(min=0)
    before = is_car.cumsum(1)
    index = torch.where(is_car, before - 1 - before.gather(1, above), 0)
    cars = torch.zeros_like(road).scatter_add_(1, road, is_car.long()).gather(1, road)
    return RoadMembership(is_car, road, index, cars, own.amax(1) + 1)


MIN_FREE_FRACTION = 1e-6
"""Minimum fraction of a lane's free length (that no car needs) which a car leaves to those after it."""


class Lanes(NamedTuple):
    """Cars per lane, with positions parameterised by spacings in [0, 1].

    Of m cars placed uniformly in the remaining free length, the first takes at most a fraction s of it with probability
    1 - (1 - s)^m. That probability is a car's ``spacing``: for uniformly placed cars it is uniform and independent of
    all others (Rényi 1953); for evenly spaced cars it is 0.39 to 0.5 for the first and 0.63 to 0.67 for all others.
    Cars do not overlap for any spacings, unless the lane is too short for their number.

    Attributes:
        behind: Cars on the lane of each that are not ahead of it, itself included.
        left: Number of cars from each to the end of its lane, itself included.
        pitch: Length of lane that each car takes up with its gap.
        room: Free length of the lane.
    """

    behind: Bool[Tensor, "b n n"]
    left: Float[Tensor, "b n"]
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
        others = (lane[:, :, None] == lane[:, None]) & (lane >= 0)[:, None]
        number = others.sum(2)
        pitch = (extent / number.clamp(min=1)).clamp(max=MIN_SPACING)  # shorter on an overfull lane
        index = torch.arange(x.shape[1], device=x.device)
        not_after = (x[:, None] < x[:, :, None]) | ((x[:, None] == x[:, :, None]) & (index <= index[:, None]))
        behind = others & not_after
        return cls(behind, (number - behind.sum(2) + 1.0), pitch, (extent - number * pitch).clamp(min=0))

    def positions(self, spacing: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute the positions of cars along the road from their spacings; differentiable."""
        # log of the fraction of the free length that a car leaves
        kept = torch.log1p(-spacing.clamp(0, 1 - MIN_FREE_FRACTION)) / self.left
        taken = -torch.expm1((self.behind * kept[:, None]).sum(2))
        return (self.behind.sum(2) - 0.5) * self.pitch + self.room * taken

    def spacing(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute spacings from positions x, the inverse of `positions`; 0 where cars fill their lane."""
        taken = x - (self.behind.sum(2) - 0.5) * self.pitch
        first = ~self.behind | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        before = torch.where(first, 0.0, taken[:, None]).amax(2)
        fraction = (taken - before) / (self.room - before).clamp(min=MIN_FREE_FRACTION)
        return torch.where(self.behind.any(2) & (self.room > 0), 1 - (1 - fraction.clamp(0, 1)) ** self.left, 0.0)


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
        parts = (self._on_roads(roads_of, roads, generator), houses, trees)
        x, y, angle = (torch.cat(column, 1) for column in list(zip(*parts, strict=True))[:3])
        scenery = [torch.where(part.used, index, -1) for part, index in ((houses, HOUSE), (trees, TREE))]
        classes = torch.cat([scenes.classes, *scenery], 1)
        parents = torch.nn.functional.pad(scenes.parents, (0, self.max_houses + self.max_trees), value=-1)
        complete = SceneBatch(classes, parents)
        low, high = _size_range(x.device)[classes].unbind(-2)  # index -1 of unused entries is the last class
        draw = torch.rand(low.shape, generator=generator, device=x.device)
        length, width = (low + (high - low) * draw).unbind(-1)
        complete = complete.with_attributes(
            x=x,
            y=y,
            angle=angle,
            length=torch.where(classes == ROAD, self.extent, length),
            width=width,
            model=sample_uniform(complete, 0, 1, generator),
            colour=sample_uniform(complete, 0, 1, generator),
        )
        spacing = Lanes.from_scenes(complete, self.extent).spacing(x)
        complete = complete.with_attributes(spacing=spacing)
        environment = sample_environment(sampled_ranges(ENVIRONMENT_ATTRIBUTES), len(scenes), generator)
        return complete.with_environment(**environment).compact()

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """Compute the cars' positions from their spacings, keeping their order on the lane."""
        lanes = Lanes.from_scenes(scenes, self.extent)
        positions = lanes.positions(scenes.attributes["spacing"])
        return scenes.with_attributes(x=torch.where(scenes.classes == CAR, positions, scenes.attributes["x"]))

    def _roads(self, roads_of: RoadMembership, generator: Generator) -> Float[Tensor, "b r"]:
        """Sample the centre lines of the roads from top to bottom; infinite for entries without a road."""
        (low, high), device = self.road_distance, roads_of.road.device
        most = roads_of.max_roads_per_scene
        gaps = low + (high - low) * torch.rand(len(roads_of.roads), most, generator=generator, device=device)
        gaps[:, 0] -= low  # the first road may be at the edge
        below = gaps.cumsum(1)
        last = below.gather(1, (roads_of.roads - 1).clamp(min=0)[:, None])
        middle = ROAD_WIDTH / 2 + below * ((self.extent - ROAD_WIDTH) / last).clamp(max=1)
        return torch.where(torch.arange(most, device=device) < roads_of.roads[:, None], middle, torch.inf)

    def _on_roads(self, roads_of: RoadMembership, roads: Float[Tensor, "b r"], generator: Generator) -> "Placements":
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
        roads: Float[Tensor, "b r"],
        number: int,
        name: str,
        others: "Placements | None",
        generator: Generator,
    ) -> "Placements":
        """Sample up to ``number`` placements of a class beside roads, each at another x, clear of ``others``."""
        batch, device = len(roads), roads.device

        def draw(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator, device=device)

        plot = _plot(name)
        columns = int(self.extent / plot)
        x = (draw(columns).argsort(1)[:, :number] + 0.5) * (self.extent / columns)
        y = plot / 2 + (self.extent - plot) * draw(number, MAX_PLACEMENT_TRIES)
        free = ((y[..., None] - roads[:, None, None]).abs() > (ROAD_WIDTH + plot * 0.75) / 2).all(-1)
        if others is not None:
            near_x = (x[:, :, None] - others.x[:, None]).abs() < (_plot("house") + plot) / 2
            near_y = (y[..., None] - others.y[:, None, None]).abs() < (_plot("house") * 0.75 + plot) / 2
            free &= ~(near_x[:, :, None] & near_y & others.used[:, None, None]).any(-1)
        chosen = y.gather(2, free.long().argmax(2, keepdim=True))[..., 0]
        wanted = torch.arange(number, device=device) < (draw(1) * (number + 1)).floor()
        return Placements(x, chosen, _angle(draw(number), along_roads=others is None), wanted & free.any(2))


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
        batch, device = roads_of.road.shape[0], roads_of.road.device
        room = int(self.extent / MIN_SPACING)  # of a lane, in cars
        most = roads_of.max_roads_per_scene
        sides = torch.rand(batch, most, 2 * room, generator=generator, device=device).argsort(2) // room
        lane = sides.flatten(1).gather(1, roads_of.road * 2 * room + roads_of.car_index % (2 * room))
        draw, shift, turn = (torch.rand(lane.shape, generator=generator, device=device) for _ in range(3))
        shift, turn = 2 * shift - 1, 2 * turn - 1
        lanes = Lanes.sort_in_lanes(torch.where(roads_of.is_car, 2 * roads_of.road + lane, -1), draw, self.extent)
        x = lanes.pitch / 2 + draw * lanes.room + (lanes.behind.sum(2) - 1) * lanes.pitch
        y = (lane - 0.5) * LANE_WIDTH + 0.2 * shift
        aligned = torch.rand(batch, 1, generator=generator, device=device) < self.aligned_fraction
        return Placements(x, y, torch.where(aligned, _along(lane, turn), math.pi * turn), roads_of.is_car)


class SpacedCars(ParallelRoads):
    """The target's parameter prior: cars evenly spaced with jitter, on the right-hand lane of their direction."""

    def sample_cars(self, roads_of: RoadMembership, generator: Generator) -> Placements:
        """Place cars alternately on both lanes, evenly spaced with jitter."""
        batch, device = roads_of.road.shape[0], roads_of.road.device
        most = roads_of.max_roads_per_scene
        first = torch.rand(batch, most, generator=generator, device=device) < 0.5
        lane = (roads_of.car_index + first.gather(1, roads_of.road)) % 2
        free = self.extent - MIN_SPACING
        spacing = free / ((roads_of.cars + 1) // 2).clamp(min=1)
        shift, drift, tilt = (2 * torch.rand(lane.shape, generator=generator, device=device) - 1 for _ in range(3))
        ahead = (roads_of.car_index // 2 + 0.5) * spacing + shift * ((spacing - MIN_SPACING) / 2).clamp(min=0)
        return Placements(
            MIN_SPACING / 2 + ahead, (lane - 0.5) * LANE_WIDTH + 0.2 * drift, _along(lane, tilt), roads_of.is_car
        )


def _plot(name: str) -> float:
    plot = AERIAL_CLASSES[name].plot
    assert plot is not None
    return plot


def _size_range(device: torch.device) -> Float[Tensor, "k 2 2"]:
    """Return the minimum and maximum length and width of each class."""
    classes = [AERIAL_CLASSES[name] for name in WORLD_CLASSES]
    return torch.tensor([cls.size_range for cls in classes], device=device)


def _along(lane: Int[Tensor, "b n"], tilt: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Compute headings of right-hand traffic, up to two degrees off the lane by ``tilt``; y points down."""
    return torch.where(lane == 1, 0.03 * tilt, math.pi * torch.where(tilt > 0, 1, -1) - 0.03 * tilt)
