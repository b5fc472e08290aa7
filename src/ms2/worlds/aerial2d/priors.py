"""Structure and parameter priors of Aerial 2D, and those of its target (section 4.2). Lengths are in metres."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.errors import UserError
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.priors.structure import ListLengthPrior
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch

ROAD, CAR, HOUSE, TREE = range(4)
LANE = 3.6
"""Width of a lane."""
ROAD_WIDTH = 2 * LANE + 1
"""Two lanes with their shoulders."""
PITCH = 4.9
"""A car and the gap behind it: the closest that cars stand on a lane."""
SIZES = (
    ((ROAD_WIDTH, ROAD_WIDTH), (ROAD_WIDTH, ROAD_WIDTH)),
    ((3.9, 1.75), (4.7, 1.95)),
    ((7.0, 5.0), (9.0, 6.5)),
    ((2.8, 2.8), (4.4, 4.4)),
)
"""Least and greatest length and width of roads, cars, houses and trees."""
HOUSE_PLOT, TREE_PLOT = 9.5, 4.5
"""Sides of the squares that a house and a tree need."""
TRIES = 8
"""Places that are tried for a house or a tree before it is left out."""


class UniformTraffic(ListLengthPrior):
    """The paper's prior: the number of roads uniform, and the number of cars on each uniform.

    Args:
        max_roads: Most roads in a scene.
        max_cars: Most cars on a road.
    """

    def __init__(self, max_roads: int = 4, max_cars: int = 8) -> None:
        super().__init__(lengths={"Roads": [1.0] * (max_roads + 1), "Cars": [1.0] * (max_cars + 1)})


class BusyFirstRoad(ListLengthPrior):
    """The paper's target: many cars on the first road and few on the others, which no PCFG can express.

    Args:
        road_weights: Weights of 1, 2, 3, ... roads.
        mean_first: Mean number of cars on the first road (Poisson).
        mean_others: Mean number of cars on every other road (Poisson).
    """

    def __init__(
        self,
        road_weights: tuple[float, ...] = (0.05, 0.15, 0.4, 0.4),
        mean_first: float = 9.0,
        mean_others: float = 3.0,
    ) -> None:
        super().__init__(lengths={"Roads": [0.0, *road_weights], "Cars": [_poisson(mean_first), _poisson(mean_others)]})


MAX_CARS = 100
"""Largest mean number of cars on a road; far fewer have room."""


def _poisson(mean: float) -> list[float]:
    """Probabilities of a Poisson distribution, up to where under a millionth is left."""
    if not 0 < mean <= MAX_CARS:
        raise UserError(f"a mean number of cars must be positive and at most {MAX_CARS}, not {mean}")
    p = [math.exp(-mean)]
    while sum(p) < 1 - 1e-6:
        p.append(p[-1] * mean / len(p))
    return p


class Traffic(NamedTuple):
    """Which road each of n objects belongs to.

    Attributes:
        is_car: Whether it is a car.
        road: Number of the road that it is, or that it stands on, from 0.
        place: Number of a car among those of its road, from 0.
        cars: Number of cars on that road.
        roads: Number of roads in the scene.
    """

    is_car: Bool[Tensor, "b n"]
    road: Int[Tensor, "b n"]
    place: Int[Tensor, "b n"]
    cars: Int[Tensor, "b n"]
    roads: Int[Tensor, " b"]

    @property
    def most_roads(self) -> int:
        """Roads of the scene that has most, but at least 1."""
        return max(1, int(self.roads.max())) if len(self.roads) else 1


def traffic_of(scenes: SceneBatch) -> Traffic:
    """Roads and cars of scenes in the order in which the grammar made them, each road before its cars."""
    is_car, above = scenes.classes == CAR, scenes.parents.clamp(min=0)
    own = (scenes.classes == ROAD).cumsum(1) - 1
    road = torch.where(is_car, own.gather(1, above), own).clamp(min=0)
    before = is_car.cumsum(1)
    place = torch.where(is_car, before - 1 - before.gather(1, above), 0)
    cars = torch.zeros_like(road).scatter_add_(1, road, is_car.long()).gather(1, road)
    return Traffic(is_car, road, place, cars, own.amax(1) + 1)


EPSILON = 1e-6
"""Least share of the room that a car leaves to those after it."""


class Lanes(NamedTuple):
    """Cars in a row, which divide the free room of their lane into gaps.

    If m cars stood anywhere in the room that is left, the first of them would take at most a share s of it with
    probability 1 - (1 - s)^m. That probability is a car's ``spacing``: uniform, and independent of all others, if cars
    stand anywhere (Rényi, 1953); in an even row 0.39 to 0.5 for the first and 0.63 to 0.67 for all others. Whatever it
    is, cars don't overlap, unless the lane is too short for so many of them.

    Attributes:
        behind: Which cars stand on the lane of each and not after it, itself included.
        left: Number of cars from each to the end of its lane, itself included.
        pitch: Length of road that each takes with the gap it must keep.
        room: Length of the lane less that of all its cars.
    """

    behind: Bool[Tensor, "b n n"]
    left: Float[Tensor, "b n"]
    pitch: Float[Tensor, "b n"]
    room: Float[Tensor, "b n"]

    @classmethod
    def of(cls, scenes: SceneBatch, extent: float) -> "Lanes":
        """The lanes of scenes: a car is on the side of its road on which it stands."""
        x, y = scenes.attributes["x"].detach(), scenes.attributes["y"].detach()
        side = y > scenes.parent_values(y)
        return cls.in_order(torch.where(scenes.classes == CAR, 2 * scenes.parents + side, -1), x, extent)

    @classmethod
    def in_order(cls, lane: Int[Tensor, "b n"], x: Float[Tensor, "b n"], extent: float) -> "Lanes":
        """Cars on numbered lanes, in the order of x; on lane -1 is what is no car."""
        others = (lane[:, :, None] == lane[:, None]) & (lane >= 0)[:, None]
        number = others.sum(2)
        pitch = (extent / number.clamp(min=1)).clamp(max=PITCH)  # a lane that is overfull is squeezed
        index = torch.arange(x.shape[1], device=x.device)
        not_after = (x[:, None] < x[:, :, None]) | ((x[:, None] == x[:, :, None]) & (index <= index[:, None]))
        behind = others & not_after
        return cls(behind, (number - behind.sum(2) + 1.0), pitch, (extent - number * pitch).clamp(min=0))

    def places(self, spacing: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Places along the road of cars with this spacing; differentiable."""
        kept = torch.log1p(-spacing.clamp(0, 1 - EPSILON)) / self.left  # log of the share that is left behind a car
        taken = -torch.expm1((self.behind * kept[:, None]).sum(2))
        return (self.behind.sum(2) - 0.5) * self.pitch + self.room * taken

    def spacing(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Spacing of cars at these places, in the order of those that they were made of; 0 without room."""
        taken = x - (self.behind.sum(2) - 0.5) * self.pitch
        first = ~self.behind | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        before = torch.where(first, 0.0, taken[:, None]).amax(2)
        share = (taken - before) / (self.room - before).clamp(min=EPSILON)
        return torch.where(self.behind.any(2) & (self.room > 0), 1 - (1 - share.clamp(0, 1)) ** self.left, 0.0)


class ParallelRoads(ParameterPrior):
    """Parallel roads one below the other, cars on them, houses and trees beside them.

    Subclasses say where on its road each car stands. What may be learned of a car is its ``spacing``, from which its
    place follows (see `Lanes`), its lane, and its heading.

    Args:
        extent: Side of the square that is seen, as the renderer's.
        road_distance: Range of the distance between the centre lines of neighbouring roads, in metres. Where roads
            would leave the square, all distances of that scene are scaled down by one factor.
        max_houses: Most houses in a scene; those without room are left out.
        max_trees: Most trees in a scene; likewise.
    """

    scenery = ("house", "tree")
    derived_attributes: Mapping[str, str] = {"spacing": "x"}

    def __init__(
        self,
        extent: float = 64.0,
        road_distance: tuple[float, float] = (10.0, 17.0),
        max_houses: int = 6,
        max_trees: int = 14,
    ) -> None:
        if not ROAD_WIDTH <= road_distance[0] <= road_distance[1]:
            raise UserError(
                f"road_distance must be two values of at least {ROAD_WIDTH} m in ascending order, not {road_distance}"
            )
        for what, most, plot in (("max_houses", max_houses, HOUSE_PLOT), ("max_trees", max_trees, TREE_PLOT)):
            if not 0 <= most <= int(extent / plot):
                raise UserError(f"{what} must lie between 0 and {int(extent / plot)} on {extent} m, not be {most}")
        self.extent, self.road_distance = extent, road_distance
        self.mutable = {
            "car": (
                Attribute("spacing", 0, 1),
                Attribute("y", -LANE, LANE, relative=True),
                Attribute("angle", -math.pi, math.pi, periodic=True),
            )
        }
        self.max_houses, self.max_trees = max_houses, max_trees

    @abstractmethod
    def cars(self, traffic: Traffic, generator: Generator) -> "Places":
        """Places of cars, used for those objects that are cars: x along the road, y across it from its middle."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Place roads and cars, then houses and trees, which are added to the scenes."""
        traffic = traffic_of(scenes)
        roads = self._roads(traffic, generator)
        houses = self._beside(roads, self.max_houses, HOUSE_PLOT, None, generator)
        trees = self._beside(roads, self.max_trees, TREE_PLOT, houses, generator)
        parts = (self._on_roads(traffic, roads, generator), houses, trees)
        x, y, angle = (torch.cat(column, 1) for column in list(zip(*parts, strict=True))[:3])
        kinds = [torch.where(part.used, kind, -1) for part, kind in ((houses, HOUSE), (trees, TREE))]
        classes = torch.cat([scenes.classes, *kinds], 1)
        parents = torch.nn.functional.pad(scenes.parents, (0, self.max_houses + self.max_trees), value=-1)
        everything = SceneBatch(classes, parents)
        low, high = torch.tensor(SIZES, device=x.device)[classes].unbind(-2)  # an unused place is as large as the last
        drawn = torch.rand(low.shape, generator=generator, device=x.device)
        length, width = (low + (high - low) * drawn).unbind(-1)
        everything = everything.with_attributes(
            x=x,
            y=y,
            angle=angle,
            length=torch.where(classes == ROAD, self.extent, length),
            width=width,
            model=sample_uniform(everything, 0, 1, generator),
            colour=sample_uniform(everything, 0, 1, generator),
        )
        spacing = Lanes.of(everything, self.extent).spacing(x)
        everything = everything.with_attributes(spacing=spacing)
        return everything.with_environment(**self._weather(len(scenes), generator)).compact()

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """Cars at the places that follow from their spacing, in the order in which they stand on their lane."""
        lanes = Lanes.of(scenes, self.extent)
        places = lanes.places(scenes.attributes["spacing"])
        return scenes.with_attributes(x=torch.where(scenes.classes == CAR, places, scenes.attributes["x"]))

    def _weather(self, n: int, generator: Generator) -> dict[str, Float[Tensor, " {n}"]]:
        bounds = {"ground": (0, 1), "ground_x": (0, 1), "ground_y": (0, 1), "sun": (-math.pi, math.pi)}
        return {
            name: low + (high - low) * torch.rand(n, generator=generator, device=generator.device)
            for name, (low, high) in {**bounds, "light": (0.85, 1.05)}.items()
        }

    def _roads(self, traffic: Traffic, generator: Generator) -> Float[Tensor, "b r"]:
        """The middles of a scene's roads, from the top; those that it lacks lie infinitely far away."""
        (low, high), device = self.road_distance, traffic.road.device
        most = traffic.most_roads
        gaps = low + (high - low) * torch.rand(len(traffic.roads), most, generator=generator, device=device)
        gaps[:, 0] -= low  # the first may lie at the edge
        below = gaps.cumsum(1)
        last = below.gather(1, (traffic.roads - 1).clamp(min=0)[:, None])
        middle = ROAD_WIDTH / 2 + below * ((self.extent - ROAD_WIDTH) / last).clamp(max=1)
        return torch.where(torch.arange(most, device=device) < traffic.roads[:, None], middle, torch.inf)

    def _on_roads(self, traffic: Traffic, roads: Float[Tensor, "b r"], generator: Generator) -> "Places":
        """Roads across the whole square, and the cars on them."""
        cars = self.cars(traffic, generator)
        middle = roads.gather(1, traffic.road).nan_to_num(posinf=0.0)  # of a scene without roads
        return Places(
            torch.where(traffic.is_car, cars.x, self.extent / 2),
            torch.where(traffic.is_car, middle + cars.y, middle),
            torch.where(traffic.is_car, cars.angle, 0.0),
            cars.used,
        )

    def _beside(
        self,
        roads: Float[Tensor, "b r"],
        most: int,
        plot: float,
        others: "Places | None",
        generator: Generator,
    ) -> "Places":
        """Up to ``most`` places beside the roads, in different columns, and away from the houses that there are."""
        batch, device = len(roads), roads.device

        def draw(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator, device=device)

        columns = int(self.extent / plot)
        x = (draw(columns).argsort(1)[:, :most] + 0.5) * (self.extent / columns)
        y = plot / 2 + (self.extent - plot) * draw(most, TRIES)
        free = ((y[..., None] - roads[:, None, None]).abs() > (ROAD_WIDTH + plot * 0.75) / 2).all(-1)
        if others is not None:
            near_x = (x[:, :, None] - others.x[:, None]).abs() < (HOUSE_PLOT + plot) / 2
            near_y = (y[..., None] - others.y[:, None, None]).abs() < (HOUSE_PLOT * 0.75 + plot) / 2
            free &= ~(near_x[:, :, None] & near_y & others.used[:, None, None]).any(-1)
        chosen = y.gather(2, free.long().argmax(2, keepdim=True))[..., 0]
        wanted = torch.arange(most, device=device) < (draw(1) * (most + 1)).floor()
        return Places(x, chosen, _turned(draw(most), upright=others is None), wanted & free.any(2))


class Places(NamedTuple):
    """Where k things are, in metres and radians, and which of them there are."""

    x: Float[Tensor, "b k"]
    y: Float[Tensor, "b k"]
    angle: Float[Tensor, "b k"]
    used: Bool[Tensor, "b k"]


def _turned(draw: Float[Tensor, "b k"], upright: bool) -> Float[Tensor, "b k"]:
    """Any angle; or along the roads, give or take three degrees."""
    if not upright:
        return (2 * draw - 1) * math.pi
    tilt = 0.05 * (4 * (draw * 2 % 1) - 2)
    return torch.where(draw < 0.5, tilt, torch.where(tilt > 0, tilt - math.pi, tilt + math.pi))


class ScatteredCars(ParallelRoads):
    """The paper's prior of parameters: cars anywhere on their road, turned anyhow.

    Places are uniform among those at which no car overlaps the next on its lane, since hidden cars could not be
    counted: n of them on a lane of length L are sorted uniform draws from L less n cars, each moved on by those before.

    Args:
        extent: Side of the square that is seen, as the renderer's.
        road_distance: Range of the distance between the centre lines of neighbouring roads, in metres. Where roads
            would leave the square, all distances of that scene are scaled down by one factor.
        max_houses: Most houses in a scene; those without room are left out.
        max_trees: Most trees in a scene; likewise.
        row_fraction: Share of scenes in which cars face along their lane. The paper has none; an extractor that has
            seen some counts the cars of real traffic better.
    """

    def __init__(
        self,
        extent: float = 64.0,
        road_distance: tuple[float, float] = (10.0, 17.0),
        max_houses: int = 6,
        max_trees: int = 14,
        row_fraction: float = 0.0,
    ) -> None:
        super().__init__(extent, road_distance, max_houses, max_trees)
        if not 0 <= row_fraction <= 1:
            raise UserError(f"row_fraction is a share of scenes, between 0 and 1, and can't be {row_fraction}")
        self.row_fraction = row_fraction

    def cars(self, traffic: Traffic, generator: Generator) -> Places:
        """A random lane, place and heading for each car."""
        batch, device = traffic.road.shape[0], traffic.road.device
        room = int(self.extent / PITCH)  # of a lane, in cars
        most = traffic.most_roads
        sides = torch.rand(batch, most, 2 * room, generator=generator, device=device).argsort(2) // room
        lane = sides.flatten(1).gather(1, traffic.road * 2 * room + traffic.place % (2 * room))
        draw, shift, turn = (torch.rand(lane.shape, generator=generator, device=device) for _ in range(3))
        shift, turn = 2 * shift - 1, 2 * turn - 1
        lanes = Lanes.in_order(torch.where(traffic.is_car, 2 * traffic.road + lane, -1), draw, self.extent)
        x = lanes.pitch / 2 + draw * lanes.room + (lanes.behind.sum(2) - 1) * lanes.pitch
        y = (lane - 0.5) * LANE + 0.2 * shift
        row_fraction = torch.rand(batch, 1, generator=generator, device=device) < self.row_fraction
        return Places(x, y, torch.where(row_fraction, _along(lane, turn), math.pi * turn), traffic.is_car)


class SpacedCars(ParallelRoads):
    """The target's layout: cars well spaced along their road, on the right-hand lane of their direction."""

    def cars(self, traffic: Traffic, generator: Generator) -> Places:
        """Cars in turn on either lane, evenly spaced, a little ahead or behind at random."""
        batch, device = traffic.road.shape[0], traffic.road.device
        most = traffic.most_roads
        first = torch.rand(batch, most, generator=generator, device=device) < 0.5
        lane = (traffic.place + first.gather(1, traffic.road)) % 2
        free = self.extent - PITCH
        spacing = free / ((traffic.cars + 1) // 2).clamp(min=1)
        shift, drift, tilt = (2 * torch.rand(lane.shape, generator=generator, device=device) - 1 for _ in range(3))
        ahead = (traffic.place // 2 + 0.5) * spacing + shift * ((spacing - PITCH) / 2).clamp(min=0)
        return Places(PITCH / 2 + ahead, (lane - 0.5) * LANE + 0.2 * drift, _along(lane, tilt), traffic.is_car)


def _along(lane: Int[Tensor, "b n"], tilt: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Headings of who keeps to the right, give or take two degrees; image rows grow downwards."""
    return torch.where(lane == 1, 0.03 * tilt, math.pi * torch.where(tilt > 0, 1, -1) - 0.03 * tilt)
