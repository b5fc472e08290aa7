"""Tests of places: where cars, houses and trees are, by attributes of the street, and that learning changes them."""

import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from street_geometry import beside, depths, ground
from torch import Tensor

from ms2.core.errors import UserError
from ms2.models.parameters import ParameterModel
from ms2.render.engines.warp.engine import WarpEngine
from ms2.scene.attributes import ENVIRONMENT
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World
from ms2.worlds.driving3d.declaration import FIRST_OBJECT_CLASS_INDEX, PLACE_ATTRIBUTES
from ms2.worlds.driving3d.draws import SeededDraws, sample_seeds
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import PARKING_WIDTH, PLACED, SEED, StreetLayout
from ms2.worlds.driving3d.priors import SimpleStreets, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView

GRAMMAR = Driving()
CAR, TRUCK, TREE, HOUSE = (GRAMMAR.classes.index(name) for name in ("car", "truck", "tree", "house"))
BOUNDS = {place.attribute.name: place.attribute for place in PLACE_ATTRIBUTES}


def layout_with(max_curvature: float = 0.0, **values: float) -> StreetLayout:
    """A layout whose places have these values, the others those in the middle of their default range."""
    middle = {place.attribute.name: sum(place.sampled) / 2 for place in PLACE_ATTRIBUTES}
    ranges = {name: (value, value) for name, value in (middle | values).items()}
    return StreetLayout(max_curvature=max_curvature, place_ranges=ranges)


def urban(layout: StreetLayout, n: int = 300, seed: int = 0, prior: Urban | SimpleStreets | None = None) -> SceneBatch:
    draw = rng(seed)
    rules = (prior or Urban({"car": 6.0, "truck": 1.0, "building": 2.0, "tree": 6.0})).sample(GRAMMAR, n, draw)
    return layout.sample(scenes_from_derivations(GRAMMAR, rules), draw)


def in_lane(scenes: SceneBatch) -> Tensor:
    """Which objects are on the road, not beside it."""
    return beside(scenes).abs() < scenes.environment["road_width"][:, None] / 2


# --- draws ---


def test_seeded_draws_are_uniform_and_independent() -> None:
    drawn = SeededDraws(sample_seeds(2000, rng()))
    first, second = drawn.uniform((2000, 4), 0), drawn.uniform((3, 2000), 1)
    for column in (*first.T, *second):
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    columns = torch.cat([first.T, second])
    correlation = columns.corrcoef() - torch.eye(7)
    assert correlation.abs().max() < 4 / 2000**0.5
    neighbours = torch.stack([first[:-1, 0], first[1:, 0]]).corrcoef()[0, 1]
    assert abs(float(neighbours)) < 4 / 2000**0.5
    waits = SeededDraws(sample_seeds(2000, rng(1))).exponential((2000,), 0)
    assert stats.kstest(waits.numpy(), "expon").pvalue > 1e-3


def test_a_scene_has_the_same_draws_in_any_batch() -> None:
    seeds = sample_seeds(5, rng())
    some, alone = SeededDraws(seeds), SeededDraws(seeds[3:4])
    for shape, dim in (((2, 5, 3), 1), ((5,), 0)):
        one = tuple(1 if i == dim else size for i, size in enumerate(shape))
        assert torch.equal(some.uniform(shape, dim).select(dim, 3), alone.uniform(one, dim).select(dim, 0))


# --- what attributes mean ---


@pytest.mark.parametrize("parked", [0.0, 0.3, 0.8, 1.0])
def test_so_many_cars_are_parked_and_so_much_traffic_is_on_ones_own_side(parked: float) -> None:
    layout = layout_with(parked=parked, parking_strips=1, parking_gap=0, own_lane=0.25, traffic_distance=6)
    scenes = urban(layout, 600, prior=Urban({"car": 3.0, "truck": 0.5}))
    cars, lane = scenes.classes == CAR, in_lane(scenes)
    count = int(cars.sum())
    sampling = 4 * (parked * (1 - parked) / count) ** 0.5
    assert float((cars & ~lane).sum()) / count == pytest.approx(parked, abs=sampling + 1e-9)
    traffic = (cars | (scenes.classes == TRUCK)) & lane
    own = float((beside(scenes) > 0)[traffic].float().mean())
    assert own == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / int(traffic.sum())) ** 0.5)
    for side in ("left", "right"):
        torch.testing.assert_close(scenes.environment[f"parking_{side}"], torch.full((600,), PARKING_WIDTH))


def test_traffic_begins_at_its_distance_and_gaps_between_parked_cars_have_their_mean() -> None:
    layout = layout_with(parked=0.5, parking_strips=1, parking_gap=2.0, traffic_distance=25, parking_distance=10)
    few = Urban({"car": 2.0, "truck": 0.0, "cyclist": 0.0})  # so that there is room beyond
    scenes = urban(layout, 400, prior=few)
    far = scenes.attributes["y"][(scenes.classes == CAR) & in_lane(scenes)]
    assert far.min() > 25
    scenes = urban(layout, 400)
    half = ground(scenes)[0][..., 1]
    gaps = []
    for side in (-1, 1):
        cars = (scenes.classes == CAR) & ~in_lane(scenes) & (beside(scenes).sign() == side)
        y = torch.where(cars, scenes.attributes["y"], torch.inf)
        y, order = y.sort(1)
        long = half.gather(1, order)
        gaps.append((y[:, 1:] - y[:, :-1] - long[:, 1:] - long[:, :-1])[y[:, 1:].isfinite()])
    found = torch.cat(gaps)
    # beside the gap there are 0.2 m and 2 % of the cars' lengths, and what a turn by 0.04 takes
    assert float(found.mean()) == pytest.approx(2.35, abs=0.25) and len(found) > 500


def test_streets_have_the_widths_of_their_places() -> None:
    layout = layout_with(lane_width=2.4, pavement_width=1.0, setback=0.5, parking_strips=1.0)
    scenes = urban(layout, 300)
    of = scenes.environment
    torch.testing.assert_close(of["road_width"], 2.4 * of["lanes"])
    for side in ("left", "right"):
        for name, mean in (("walk", 1.0), ("verge", 0.5)):
            values = of[f"{name}_{side}"]
            assert float(values.mean()) == pytest.approx(mean, abs=0.05 * mean)
            assert values.min() >= 0.75 * mean - 1e-6 and values.max() <= 1.25 * mean + 1e-6


def test_trees_stand_in_front_of_houses_as_often_as_they_should() -> None:
    for share in (0.1, 0.9):
        scenes = urban(layout_with(street_trees=share, setback=6.0), 200, prior=SimpleStreets(1, 3))
        sides = [
            torch.where(beside(scenes) > 0, *(scenes.environment[f"{w}_{s}"][:, None] for s in ("right", "left")))
            for w in ("parking", "walk", "verge")
        ]
        front = beside(scenes).abs() < scenes.environment["road_width"][:, None] / 2 + sum(sides) + 1.0
        trees = scenes.classes == TREE
        assert float(front[trees].float().mean()) == pytest.approx(share, abs=0.08)


def test_rows_of_parked_cars_on_both_kerbs_of_a_narrow_street_can_be_had() -> None:
    layout = layout_with(
        parked=1.0, parking_strips=1.0, parking_gap=0.3, lane_width=2.4, pavement_width=1.5, setback=0.3
    )
    scenes = urban(layout, 100, prior=Urban({"car": 12.0}))
    cars = (scenes.classes == CAR) & ~in_lane(scenes)
    left, right = ((cars & (beside(scenes).sign() == side)).sum(1) for side in (-1, 1))
    assert ((left >= 3) & (right >= 3)).float().mean() > 0.7
    assert depths(scenes).max() <= 1e-3


def test_rows_of_parked_cars_begin_at_their_distance() -> None:
    layout = layout_with(parked=1.0, parking_strips=1.0, parking_gap=0.0, parking_distance=20.0)
    scenes = urban(layout, 400, prior=Urban({"car": 2.0}))
    nearest = torch.where(scenes.classes == CAR, scenes.attributes["y"], torch.inf)
    for side in (-1, 1):
        first = nearest.where(beside(scenes).sign() == side, torch.inf).amin(1)
        first = first[first.isfinite()]
        # uniform from half to one and a half times the distance, then half a car
        assert first.min() > 11 and first.max() < 34 and float(first.mean()) == pytest.approx(22.5, abs=1.0)


# --- placement ---


@given(seed=st.integers(0, 10**6), prior=st.sampled_from([Urban(), Suburban(), SimpleStreets(0, 12)]))
@settings(max_examples=15, deadline=None)
def test_nothing_stands_in_anything_wherever_learning_puts_it(seed: int, prior: Urban) -> None:
    scenes = urban(StreetLayout(place_ranges={}), 6, seed, prior)
    assert depths(scenes).max() <= 1e-3
    ends = {
        name: torch.where(torch.rand(6, generator=rng(seed + 1)) < 0.5, float(bounds.low), float(bounds.high))
        for name, bounds in BOUNDS.items()
    }
    moved = StreetLayout(place_ranges={}).derive_attributes(scenes.with_environment(**ends))
    assert depths(moved).max() <= 1e-3
    real = scenes.classes >= FIRST_OBJECT_CLASS_INDEX
    assert (moved.attributes["x"].abs() / moved.attributes["y"])[real].max() <= 0.82


def test_unchanged_places_leave_everything_where_it_is() -> None:
    layout = StreetLayout(place_ranges={}, off_street_fraction=0.2)
    scenes = urban(layout, 50)
    again = layout.derive_attributes(scenes)
    for part in ("attributes", "environment"):
        assert getattr(scenes, part).keys() == getattr(again, part).keys()
        for name, values in getattr(scenes, part).items():
            assert torch.equal(values, getattr(again, part)[name]), name
    one = layout.derive_attributes(scenes[7:8])
    assert all(torch.allclose(one.attributes[name][0], scenes.attributes[name][7]) for name in ("x", "y", "yaw"))


def test_layouts_without_places_are_left_as_they_are() -> None:
    layout = StreetLayout()
    scenes = urban(layout, 10)
    assert layout.derive_attributes(scenes) is scenes and SEED not in scenes.environment
    assert not BOUNDS.keys() & {a.name for a in layout.mutable[ENVIRONMENT]}


def test_a_parameter_model_moves_cars_as_it_learns_places() -> None:
    view = StreetView((32, 104), engine=WarpEngine(shadow_size=0))
    world = World(GRAMMAR, SimpleStreets(2, 4), StreetLayout(place_ranges={}), view)
    assert BOUNDS.keys() <= {a.name for a in world.mutable_environment}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ParameterModel(world, {ENVIRONMENT: ["parked", "lane_width"]}, hidden=8, num_heads=2, num_layers=1)
    scenes = world.sample_prior(200, rng())
    values = model.rsample(model.distribution(scenes, rng(1)), rng(2))
    shares = {}
    for name, extreme in (("few", -8.0), ("many", 8.0)):
        moved = model.with_values(scenes, torch.full_like(values, extreme))
        has_strip = (moved.environment["parking_left"] + moved.environment["parking_right"] > 0)[:, None]
        cars = (moved.classes == CAR) & has_strip
        shares[name] = float((cars & ~in_lane(moved)).sum() / cars.sum())
        assert torch.equal(moved.attributes["colour"], scenes.attributes["colour"])
        assert {n for n in PLACED if not torch.equal(moved.environment[n], scenes.environment[n])} >= {"road_width"}
    assert shares["few"] < 0.02 and shares["many"] > 0.9


# --- errors ---


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ({"parkd": (0.0, 1.0)}, r"place_ranges has no attribute 'parkd'. .*parked"),
        ({"setback": (0.0, 1.0)}, r"place_ranges must give two values of 'setback' in \[0.2, 12\]"),
        ({"parked": (0.7, 0.3)}, r"ascending order, not 0.7, 0.3"),
    ],
)
def test_ranges_that_cannot_be(ranges: dict[str, tuple[float, float]], text: str) -> None:
    with pytest.raises(UserError, match=text):
        StreetLayout(place_ranges=ranges)
