"""Tests of the driving world's language: grammar, priors and street layouts, and that nothing stands in anything."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from street_geometry import beside, depths, ground
from torch import Tensor

from ms2.core.errors import UserError
from ms2.grammar.derivations import lengths
from ms2.priors.structure import ListLengthPrior, StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.scene.graph import derivation_from_graph, scene_graph
from ms2.worlds.driving3d.assets.mesh_classes import mesh_classes
from ms2.worlds.driving3d.declaration import (
    FIRST_OBJECT_CLASS_INDEX,
    OBJECT_CLASSES,
    OBJECTS,
    SCENARIO_SETTINGS,
    SCENARIOS,
)
from ms2.worlds.driving3d.grammar import Driving, list_symbol
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import (
    DISPERSION,
    RandomStreets,
    Rural,
    ScenarioPrior,
    SimpleStreets,
    Suburban,
    Urban,
    negative_binomial,
)
from ms2.worlds.driving3d.renderer import StreetView
from ms2.worlds.driving3d.strip_tables import EGO_LANE_WEIGHT, STRIPS
from ms2.worlds.driving3d.strips import MIN_DISTANCE

GRAMMAR = Driving()
NUMBER = {name: i for i, name in enumerate(GRAMMAR.classes)}


def drawn(prior: StructurePrior, n: int = 100, seed: int = 0, layout: StreetLayout | None = None) -> SceneBatch:
    generator = rng(seed)
    return (layout or StreetLayout()).sample(
        scenes_from_derivations(GRAMMAR, prior.sample(GRAMMAR, n, generator)), generator
    )


def street(scenario: str, *objects: str) -> SceneBatch:
    """One scene of these objects."""
    classes = torch.tensor([[NUMBER[scenario], *(NUMBER[name] for name in objects)]])
    parents = torch.zeros_like(classes)
    parents[:, 0] = -1
    return SceneBatch(classes, parents)


# --- grammar ---


def test_the_grammar_has_29_rules_and_these_classes() -> None:
    assert GRAMMAR.num_rules == 29
    assert GRAMMAR.classes == (*SCENARIOS, *OBJECTS) and NUMBER["car"] == FIRST_OBJECT_CLASS_INDEX
    assert [str(finding) for finding in GRAMMAR.lint()] == []


@pytest.mark.parametrize(("name", "many"), [("car", "Cars"), ("bush", "Bushes"), ("pedestrian", "Pedestrians")])
def test_lists_are_plurals(name: str, many: str) -> None:
    assert list_symbol(name) == many and many in GRAMMAR.nonterminals


def test_n_objects_take_14_and_n_steps() -> None:
    rules = SimpleStreets(0, 4).sample(GRAMMAR, 200, rng())
    objects = (scenes_from_derivations(GRAMMAR, rules).classes >= FIRST_OBJECT_CLASS_INDEX).sum(1)
    assert torch.equal(lengths(GRAMMAR, rules), 14 + objects)


def test_everything_belongs_to_the_scenario() -> None:
    scenes = scenes_from_derivations(GRAMMAR, SimpleStreets().sample(GRAMMAR, 50, rng()))
    assert (scenes.classes[:, 0] < FIRST_OBJECT_CLASS_INDEX).all() and (scenes.parents[:, 0] == -1).all()
    assert (scenes.parents[:, 1:][scenes.mask[:, 1:]] == 0).all()


def test_a_scene_graph_gives_its_derivation_back() -> None:
    for rules in SimpleStreets(0, 1).sample(GRAMMAR, 5, rng()).tolist():
        rules = [rule for rule in rules if rule < GRAMMAR.num_rules]
        graph = scene_graph(GRAMMAR, rules)
        assert derivation_from_graph(GRAMMAR, graph) == rules
        assert graph.children[0].symbol in SCENARIOS


# --- structure priors ---


def test_simple_streets_have_every_number_alike_in_every_scenario() -> None:
    counts = scenes_from_derivations(GRAMMAR, SimpleStreets(1, 4).sample(GRAMMAR, 3000, rng())).counts(len(NUMBER))
    assert stats.chisquare(counts[:, :FIRST_OBJECT_CLASS_INDEX].sum(0).numpy()).pvalue > 1e-3
    for i in range(FIRST_OBJECT_CLASS_INDEX, len(NUMBER)):
        table = counts[:, i].bincount(minlength=5)
        assert table[0] == 0 and len(table) == 5 and stats.chisquare(table[1:].numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("mean", "spread"), [(0.3, 0.2), (8.0, 0.2), (14.0, 0.5), (3.0, 0.0)])
def test_negative_binomials_against_the_closed_form(mean: float, spread: float) -> None:
    p = torch.tensor(negative_binomial(mean, spread), dtype=torch.double)
    k = range(len(p))
    size = 1 / spread if spread else math.inf
    known = stats.nbinom(size, size / (size + mean)).pmf(k) if spread else stats.poisson(mean).pmf(k)
    torch.testing.assert_close(p, torch.tensor(known), rtol=1e-9, atol=1e-12)
    assert 1 - 1e-4 <= float(p.sum()) <= 1 + 1e-12
    number = torch.arange(len(p))
    found = float((p * number).sum())
    assert found == pytest.approx(mean, rel=0.01)
    assert float((p * (number - found) ** 2).sum()) == pytest.approx(mean * (1 + spread * mean), rel=0.03)


def test_a_mean_of_zero_is_none() -> None:
    assert negative_binomial(0, 0.2) == [1.0]


@pytest.mark.parametrize("prior", [Rural(), Suburban(), Urban()], ids=lambda prior: type(prior).__name__)
def test_scenarios_have_their_means(prior: StructurePrior) -> None:
    scenario = type(prior).__name__
    counts = scenes_from_derivations(GRAMMAR, prior.sample(GRAMMAR, 2000, rng())).counts(len(NUMBER)).double()
    assert counts[:, :FIRST_OBJECT_CLASS_INDEX].sum(0).tolist() == [2000 * (name == scenario) for name in SCENARIOS]
    for name, mean in SCENARIO_SETTINGS[scenario].mean_counts.items():
        deviation = math.sqrt(mean * (1 + DISPERSION * mean) / 2000)
        assert float(counts[:, NUMBER[name]].mean()) == pytest.approx(mean, abs=4 * deviation + 2e-3 * mean)


def test_means_may_be_given() -> None:
    prior = Urban({"car": 0.0, "tree": 2.0}, dispersion=0.0)
    counts = scenes_from_derivations(GRAMMAR, prior.sample(GRAMMAR, 1000, rng())).counts(len(NUMBER))
    assert not counts[:, NUMBER["car"]].any()
    assert float(counts[:, NUMBER["tree"]].float().var()) == pytest.approx(2.0, rel=0.2)


def test_hidden_streets_are_known_by_their_seed() -> None:
    first, again, other = RandomStreets(3), RandomStreets(3), RandomStreets(4)
    assert first.lengths == again.lengths and first.weights == again.weights
    assert first.lengths != other.lengths and first.weights != other.weights
    rules = first.sample(GRAMMAR, 300, rng())
    assert first.log_prob(GRAMMAR, rules).isfinite().all()
    limited = scenes_from_derivations(GRAMMAR, RandomStreets(0, {"car": 9, "pole": 0}).sample(GRAMMAR, 1000, rng()))
    counts = limited.counts(len(NUMBER)).amax(0)
    assert counts[NUMBER["car"]] == 9 and counts[NUMBER["pole"]] == 0 and counts[NUMBER["truck"]] <= 6


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Urban({"cra": 2.0}), "no class 'cra' in driving scenes. Did you mean 'car'"),
        (lambda: RandomStreets(0, {"tre": 2}), "no class 'tre' in driving scenes. Did you mean 'tree'"),
        (lambda: ScenarioPrior("Urbane"), "no scenario 'Urbane'. Did you mean 'Urban'"),
        (lambda: SimpleStreets(3, 1), "in ascending order, not 3 and 1"),
        (lambda: Rural({"car": -1.0}), "Rural: mean_counts.car must be at least 0, not -1"),
        (lambda: Rural(dispersion=-0.1), "dispersion must be at least 0, not -0.1"),
        (lambda: StreetLayout(max_distance=10), "max_distance must be greater than 12, not 10"),
        (lambda: StreetLayout(max_curvature=0.1), "max_curvature must be at most 0.0125, not 0.1"),
        (lambda: StreetLayout(off_street_fraction=1.1), "off_street_fraction must be at most 1, not 1.1"),
        (lambda: StreetLayout(light_ranges={"clouds": (0, 5)}), "set cloud_range instead"),
        (
            lambda: StreetLayout(light_ranges={"contrast": (-3, -2)}),
            "two values of 'contrast' in .0.5, 4. in ascending order",
        ),
        (lambda: StreetLayout(max_distance=100, max_curvature=1 / 80), "below 1/max_distance"),
        (lambda: StreetLayout(cloud_range=(0.5, 0.2)), "cloud_range must be two fractions"),
        (
            lambda: StreetLayout(assets="/no/such/folder").sample(street("Rural", "car"), rng()),
            "there is no assets folder",
        ),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


# --- layouts ---


def test_the_measure_of_overlap_knows_what_overlaps() -> None:
    two = street("Rural", "car", "car", "tree")
    size = mesh_classes()["car"].sizes[0]
    zero = torch.zeros(1, 4)
    of = dict.fromkeys(("width", "length"), zero + 1) | {"model": zero, "yaw": zero.clone()}

    def depth(x: float, y: float, yaw: float = 0.0) -> float:
        place = {"x": torch.tensor([[0.0, 0, x, 50]]), "y": torch.tensor([[0.0, 0, y, 50]])}
        scenes = SceneBatch(two.classes, two.parents, of | place | {"yaw": torch.tensor([[0, 0, yaw, 0]])})
        return float(depths(scenes)[0, 1, 2])

    assert depth(0, size[1] - 0.1) == pytest.approx(0.1, abs=1e-4)
    assert depth(size[0] + 0.3, 1.0) == pytest.approx(-0.3, abs=1e-4)
    assert depth(size[0] / 2 + size[1] / 2 - 0.2, 0, math.pi / 2) == pytest.approx(0.2, abs=1e-4)


PRIORS: list[ListLengthPrior] = [Rural(), Suburban(), Urban(), SimpleStreets(), SimpleStreets(0, 12)]


@given(
    prior=st.sampled_from(PRIORS),
    seed=st.integers(0, 10**6),
    reach=st.sampled_from([20.0, 45.0, 60.0, 75.0]),
    max_curve=st.sampled_from([0.0, 1 / 250, 1 / 80]),
    off_street_fraction=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=40)
def test_nothing_stands_in_anything(
    prior: ListLengthPrior, seed: int, reach: float, max_curve: float, off_street_fraction: float
) -> None:
    scenes = drawn(prior, 6, seed, StreetLayout(reach, max_curve, off_street_fraction=off_street_fraction))
    deep = depths(scenes)
    worst = int(deep.argmax())
    n = deep.shape[1]
    i, j, k = worst // n**2, worst // n % n, worst % n
    names = [GRAMMAR.classes[int(scenes.classes[i, at])] for at in (j, k)]
    assert deep.max() <= 1e-3, f"{names[0]} and {names[1]} by {deep.max():.2f} m"


@given(
    prior=st.sampled_from(PRIORS),
    seed=st.integers(0, 10**6),
    reach=st.sampled_from([20.0, 60.0]),
    max_curve=st.sampled_from([0.0, 1 / 250, 1 / 80]),
)
@settings(max_examples=20)
def test_all_is_in_view_and_within_bounds(prior: ListLengthPrior, seed: int, reach: float, max_curve: float) -> None:
    scenes = drawn(prior, 8, seed, StreetLayout(reach, max_curve))
    view = StreetView.attributes, StreetView.environment
    for attribute in view[0]:
        values = scenes.attributes[attribute.name]
        assert values.shape == scenes.classes.shape and values.isfinite().all()
        used = values[scenes.classes >= FIRST_OBJECT_CLASS_INDEX]
        assert ((used >= attribute.low) & (used <= attribute.high)).all(), attribute.name
    for attribute in view[1]:
        values = scenes.environment[attribute.name]
        assert ((values >= attribute.low) & (values <= attribute.high)).all(), attribute.name
    real = scenes.classes >= FIRST_OBJECT_CLASS_INDEX
    x, y = scenes.attributes["x"][real], scenes.attributes["y"][real]
    assert (y > MIN_DISTANCE).all()
    # KITTI's camera sees 0.845 m to the left for each metre ahead, and is turned by 0.02 at most
    assert (x.abs() / y).max() <= 0.82


def test_objects_stand_within_reach_where_there_is_room() -> None:
    for prior, share in ((Rural(), 0.02), (SimpleStreets(), 0.02), (Suburban(), 0.05), (Urban(), 0.12)):
        scenes = drawn(prior, 200)
        far = scenes.attributes["y"][scenes.classes >= FIRST_OBJECT_CLASS_INDEX] > 60
        assert far.float().mean() <= share


@pytest.mark.parametrize("prior", [Rural(), Suburban(), Urban(), SimpleStreets()], ids=lambda p: type(p).__name__)
def test_objects_stand_where_their_kind_does(prior: ListLengthPrior) -> None:
    scenes = drawn(prior, 150)
    env = {name: values[:, None] for name, values in scenes.environment.items()}
    at, half = beside(scenes), env["road_width"] / 2
    right = at > 0
    side = {
        what: torch.where(right, env[f"{what}_right"], env[f"{what}_left"]) for what in ("parking", "walk", "verge")
    }
    kerb = half + side["parking"]
    wide, long = ground(scenes)[0].unbind(-1)

    def of(*names: str) -> Tensor:
        return torch.isin(scenes.classes, torch.tensor([NUMBER[name] for name in names]))

    for name in ("car", "truck"):
        assert (at.abs() + wide <= kerb + 0.05)[of(name)].all(), name
    assert (at.abs() <= half)[of("truck")].all()
    # those who walk are on the pavement or, without one, beside the road
    assert (at.abs() - wide >= kerb)[of("pedestrian")].all()
    assert (at.abs() - wide > kerb)[of("tree", "bush", "sign", "light", "pole")].all()
    # fronts are turned to the street, so that their length lies across it: they stand behind pavement and verge
    fronts = of("house", "building")
    assert (at.abs() - long >= kerb + side["walk"] + side["verge"] - 1e-3)[fronts].all()
    poles = of("sign", "light", "pole")
    assert (at.abs() - wide <= kerb + 0.6)[poles].all()


def test_a_fraction_of_the_traffic_stands_off_the_street_with_random_heading() -> None:
    """Where there is room; what is no traffic stays where it is."""
    scenes = drawn(SimpleStreets(1, 2), 400, layout=StreetLayout(off_street_fraction=0.4))
    env = {name: values[:, None] for name, values in scenes.environment.items()}
    at = beside(scenes)
    parking, walk = (torch.where(at > 0, env[f"{what}_right"], env[f"{what}_left"]) for what in ("parking", "walk"))
    wide = ground(scenes)[0][..., 0]
    off = at.abs() > env["road_width"] / 2 + parking + walk
    cars = scenes.classes == NUMBER["car"]
    assert 0.25 < off[cars].float().mean() < 0.45
    yaw = scenes.attributes["yaw"][cars & off]
    assert stats.kstest(((yaw / math.pi + 1) / 2).numpy() % 1, "uniform").pvalue > 1e-3
    kerb = env["road_width"] / 2 + parking
    assert (at.abs() + wide <= kerb + 0.05)[cars & ~off].float().mean() > 0.98
    poles = torch.isin(scenes.classes, torch.tensor([NUMBER[name] for name in ("sign", "light", "pole")]))
    assert (at.abs() - wide <= kerb + 0.6)[poles].all()


def test_traffic_keeps_to_the_right_and_fronts_face_the_street() -> None:
    scenes = drawn(SimpleStreets(2, 5), 200)
    at, right = beside(scenes), beside(scenes) > 0
    bend = torch.atan(scenes.environment["curve"][:, None] * scenes.attributes["y"])
    along = (scenes.attributes["yaw"] + bend + math.pi) % (2 * math.pi) - math.pi  # against the street
    traffic = torch.isin(scenes.classes, torch.tensor([NUMBER["car"], NUMBER["truck"]]))
    assert (along.abs()[traffic & right] <= 0.0401).all()
    assert (along.abs()[traffic & ~right] >= math.pi - 0.0401).all()
    fronts = torch.isin(scenes.classes, torch.tensor([NUMBER["house"], NUMBER["building"]]))
    # a model's front looks along -y, to the camera; turned clockwise it looks to the left
    assert torch.allclose(along[fronts], torch.where(right, -math.pi / 2, math.pi / 2)[fronts], atol=1e-4)
    people = scenes.classes == NUMBER["pedestrian"]
    ways = along.cos()[people]
    assert (ways.abs() > 0.9).all() and (ways > 0).any() and (ways < 0).any()
    assert (at[traffic].abs() > 0.5).all()


def test_streets_have_their_scenarios_sections() -> None:
    scenes = drawn(SimpleStreets(), 2000)
    env = scenes.environment
    for i, name in enumerate(SCENARIOS):
        mine, bounds = scenes.classes[:, 0] == i, SCENARIO_SETTINGS[name]
        width = torch.where(env["lanes"] == 4, env["road_width"] / 1.8, env["road_width"])[mine]
        assert width.min() >= bounds.road_width.low and width.max() <= bounds.road_width.high
        uniform = stats.uniform(bounds.road_width.low, bounds.road_width.high - bounds.road_width.low)
        assert stats.kstest(width.numpy(), uniform.cdf).pvalue > 1e-3
        assert float((env["lanes"][mine] == 4).float().mean()) == pytest.approx(bounds.four_lanes, abs=0.06)
        for side in ("left", "right"):
            assert float((env[f"parking_{side}"][mine] > 0).float().mean()) == pytest.approx(bounds.parking, abs=0.06)
            walk, verge = env[f"walk_{side}"][mine], env[f"verge_{side}"][mine]
            assert float((walk > 0).float().mean()) == pytest.approx(bounds.pavement, abs=0.06)
            assert walk.max() <= bounds.pavement_width.high and walk[walk > 0].min() >= bounds.pavement_width.low
            assert verge.min() >= bounds.verge_width.low and verge.max() <= bounds.verge_width.high


def test_the_camera_drives_on_the_right() -> None:
    env = drawn(SimpleStreets(), 500).environment
    lane = env["road_width"] / env["lanes"]
    assert (env["offset"] > lane * 0.5 - 0.31).all() and (env["offset"] < env["road_width"] / 2).all()


def test_places_of_one_car_alone_are_uniform_along_its_strip() -> None:
    scene = street("Rural", "car")
    many = SceneBatch(scene.classes.expand(1500, -1), scene.parents.expand(1500, -1))
    layout = StreetLayout(max_curvature=0.0)
    found = layout.sample(many, rng())
    y, at = found.attributes["y"][:, 1], beside(found)[:, 1]
    # on the right two-lane strip, which is seen from MIN_DISTANCE on, its middle is 3 m behind that
    two = found.environment["lanes"] == 2
    mine = (at > 0) & two
    share = (y[mine] - MIN_DISTANCE - 3) / (60 - MIN_DISTANCE - 6)
    assert stats.kstest(share.numpy(), "uniform").statistic < 0.06
    own = EGO_LANE_WEIGHT / (1 + EGO_LANE_WEIGHT)
    assert stats.binomtest(int(mine.sum()), int(two.sum()), own).pvalue > 1e-3


@pytest.mark.parametrize("number", [0, 1, 80])
@pytest.mark.parametrize("name", ["car", "truck", "building", "pedestrian", "bush", "sign"])
def test_no_object_is_lost_however_many_there_are(number: int, name: str) -> None:
    scenes = StreetLayout().sample(street("Urban", *[name] * number), rng())
    assert scenes.attributes["x"].isfinite().all() and scenes.attributes["y"].shape == (1, number + 1)
    y, x = scenes.attributes["y"][0, 1:], scenes.attributes["x"][0, 1:]
    if number:
        assert len(torch.stack([x, y], 1).unique(dim=0)) == number
        assert depths(scenes).max() <= 1e-3 and (x.abs() <= 0.82 * y).all()


def test_a_grammar_without_scenarios_has_a_street_too() -> None:
    classes = torch.tensor([[NUMBER["car"], NUMBER["tree"], -1], [-1, -1, -1]])
    scenes = StreetLayout().sample(SceneBatch(classes, torch.full_like(classes, -1)), rng())
    assert all(values.isfinite().all() for values in (*scenes.attributes.values(), *scenes.environment.values()))


def test_layouts_are_known_by_their_generator_and_leave_the_scenes_alone() -> None:
    structure = scenes_from_derivations(GRAMMAR, SimpleStreets().sample(GRAMMAR, 20, rng()))
    before = structure.classes.clone(), structure.parents.clone()
    first, again, other = (StreetLayout().sample(structure, rng(seed)) for seed in (1, 1, 2))
    for name in (*first.attributes, *first.environment):
        of = [scenes.attributes | scenes.environment for scenes in (first, again, other)]
        assert torch.equal(of[0][name], of[1][name])
        assert not torch.equal(of[0][name], of[2][name]) or name in ("lanes", "parking_left", "parking_right")
    assert not structure.attributes and not structure.environment
    assert torch.equal(structure.classes, before[0]) and torch.equal(structure.parents, before[1])
    assert torch.equal(first.classes, structure.classes) and torch.equal(first.parents, structure.parents)


def test_models_of_ones_own_have_the_room_that_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "pedestrian"
    folder.mkdir()
    corners = list(itertools.product((-1.5, 1.5), (-2.0, 2.0), (0.0, 1.8)))
    lines = [f"v {x} {z} {y}" for x, y, z in corners]  # these files have y up
    faces = ["f 1 2 4", "f 1 4 3", "f 5 6 8", "f 5 8 7", "f 1 5 2", "f 2 5 6"]
    (folder / "wide.obj").write_text("\n".join([*lines, *faces]))
    scene = street("Urban", *["pedestrian"] * 12)
    usual, wide = (
        StreetLayout(max_curvature=0, assets=assets).sample(scene, rng()) for assets in (None, str(tmp_path))
    )

    def gap(scenes: SceneBatch) -> float:
        at = beside(scenes)[0, 1:] > 0
        y = scenes.attributes["y"][0, 1:]
        return min(float(y[one].sort().values.diff().min()) for one in (at, ~at) if one.sum() > 1)

    assert gap(usual) < 4 < gap(wide)


def test_every_strip_is_used() -> None:
    assert {strip for cls in OBJECT_CLASSES.values() for strip in cls.strips} == set(STRIPS)


def test_a_tail_mixes_a_geometric_number_in() -> None:
    prior = SimpleStreets(1, 3, tail_fraction=0.2, tail_mean=4.0)
    [numbers] = {tuple(row) for row in prior.lengths.values()}
    geometric = stats.nbinom(1, 1 / 5).pmf(np.arange(len(numbers)))  # of mean 4
    few = np.zeros(len(numbers))
    few[1:4] = 1 / 3
    assert np.array(numbers) == pytest.approx(0.8 * few + 0.2 * geometric, abs=1e-4)
    with pytest.raises(UserError, match=r"tail_fraction must be at most 1, not 1.5"):
        SimpleStreets(tail_fraction=1.5)
