"""Tests of the Aerial 2D world: grammar, statistics of prior and target, layouts, and what can be told of them."""

import itertools
import math

import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ms2.core.errors import UserError
from ms2.metrics.statistics import ChildCount, ObjectCount, StructureVector, count_children
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import fit_pcfg
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.scene.graph import derivation_from_graph, scene_graph
from ms2.worlds.aerial2d.declaration import CAR, HOUSE, MIN_SPACING, ROAD, ROAD_WIDTH, TREE
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.lanes import Lanes, road_membership
from ms2.worlds.aerial2d.priors import (
    BusyFirstRoad,
    ScatteredCars,
    SpacedCars,
    UniformTraffic,
)

GRAMMAR = Aerial2D()
LAYOUTS: list[ParameterPrior] = [ScatteredCars(), SpacedCars()]
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)


def scenes(prior: UniformTraffic | BusyFirstRoad, n: int = 4000, seed: int = 0) -> SceneBatch:
    return scenes_from_derivations(GRAMMAR, prior.sample(GRAMMAR, n, rng(seed)))


def two_roads() -> SceneBatch:
    """A scene with three cars on the first road and one on the second, and one without roads."""
    rules = torch.tensor([[0, 1, 3, 4, 4, 4, 5, 1, 3, 4, 5, 2], [0, 2, *[6] * 10]])
    return scenes_from_derivations(GRAMMAR, rules)


# --- grammar ---


def test_the_grammar_is_the_papers() -> None:
    assert GRAMMAR.num_rules == 6 and GRAMMAR.classes == ("Road", "car")
    rules = [0, 1, 3, 4, 4, 5, 1, 3, 5, 2]
    assert len(rules) == 2 + (3 + 2) + (3 + 0)  # 2 + sum of (3 + cars)
    graph = scene_graph(GRAMMAR, rules)
    assert str(graph) == "Scene\n  Road\n    car\n    car\n  Road"
    assert derivation_from_graph(GRAMMAR, graph) == rules


def test_the_priors_longest_derivation() -> None:
    assert UniformTraffic().sample(GRAMMAR, 4000, rng()).shape[1] <= 46  # METHOD: four roads of eight cars


# --- structure ---


def uniformity(table: torch.Tensor, bins: int) -> float:
    return float(stats.chisquare(table.sum(0).numpy()[:bins]).pvalue)


def test_the_prior_is_uniform_in_roads_and_in_cars_on_each() -> None:
    drawn = scenes(UniformTraffic())
    assert uniformity(ObjectCount("Road").measure(drawn, GRAMMAR.classes), 5) > 1e-3
    for item in (1, 2, 3, 4):
        table = ChildCount("car", "Road", [item], "cars").measure(drawn, GRAMMAR.classes)
        assert table.shape[1] == 9 and uniformity(table, 9) > 1e-3


def test_the_target_is_the_papers() -> None:
    drawn = scenes(BusyFirstRoad(), 8000)
    roads = ObjectCount("Road").measure(drawn, GRAMMAR.classes).sum(0)
    assert roads[0] == 0
    assert stats.chisquare(roads[1:].numpy(), 8000 * torch.tensor([0.05, 0.15, 0.4, 0.4]).numpy()).pvalue > 1e-3
    for items, mean in (([1], 9), ([2, 3, 4], 3)):
        share = ChildCount("car", "Road", items, "cars").measure(drawn, GRAMMAR.classes).sum(0).double()
        counted = share.sum()
        bins = torch.arange(len(share)).double()
        found = float((share * bins).sum() / counted)
        assert found == pytest.approx(mean, abs=4 * math.sqrt(mean / float(counted)))
        variance = float((share * (bins - found) ** 2).sum() / counted)
        assert variance == pytest.approx(mean, rel=0.1)  # that of a Poisson distribution is its mean


def test_the_targets_log_probability_is_that_of_its_formula() -> None:
    """One road with two cars: 0.05 * Poisson(2; 9)."""
    rules = torch.tensor([[0, 1, 3, 4, 4, 5, 2]])
    assert float(BusyFirstRoad().log_prob(GRAMMAR, rules)) == pytest.approx(
        math.log(0.05) + stats.poisson(9).logpmf(2), abs=1e-4
    )
    both = torch.tensor([[0, 1, 3, 4, 5, 1, 3, 4, 5, 2]])
    expected = math.log(0.15) + stats.poisson(9).logpmf(1) + stats.poisson(3).logpmf(1)
    assert float(BusyFirstRoad().log_prob(GRAMMAR, both)) == pytest.approx(expected, abs=1e-4)


def test_no_pcfg_tells_the_first_road_from_the_others() -> None:
    """The best one has the shares of the rules, and geometric numbers of cars, alike on every road."""
    rules = BusyFirstRoad().sample(GRAMMAR, 8000, rng())
    best = fit_pcfg(GRAMMAR, rules)
    drawn = best.sample(GRAMMAR, 20_000, rng(1))
    counts, there = count_children(scenes_from_derivations(GRAMMAR, drawn), CAR, ROAD)
    cars, roads = (rules == 4).sum(), (rules == 3).sum()
    for item in range(3):
        mean = float(counts[:, item].sum() / there[:, item].sum())
        assert mean == pytest.approx(float(cars / roads), rel=0.06)

    # maximum likelihood: no other weights of the cars' rules do better
    def likelihood(more: float) -> float:
        weights = dict(best.weights)
        weights["Cars"] = [weights["Cars"][0] * more, weights["Cars"][1]]
        return float(type(best)(weights=weights).log_prob(GRAMMAR, rules[:2000]).mean())

    top = likelihood(1.0)
    assert top > likelihood(1.3) and top > likelihood(1 / 1.3)


# --- who belongs to which road ---


def test_cars_know_their_road() -> None:
    found = road_membership(two_roads())
    assert found.roads.tolist() == [2, 0]
    assert found.is_car[0].tolist() == [False, True, True, True, False, True]
    assert found.road[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert found.car_index[0].tolist() == [0, 0, 1, 2, 0, 0]
    assert found.cars[0].tolist() == [3, 3, 3, 3, 1, 1]


def test_children_are_counted_by_parent() -> None:
    counts, there = count_children(two_roads(), CAR, ROAD)
    assert counts.tolist() == [[3, 1], [0, 0]] and there.tolist() == [[1, 1], [0, 0]]
    joint = StructureVector("car", "Road", num_parents=3).measure(two_roads(), GRAMMAR.classes)
    assert joint.tolist() == [[2, 3, 1, 0], [0, 0, 0, 0]]
    others = ChildCount("car", "Road", [2, 3], "others").measure(two_roads(), GRAMMAR.classes)
    assert others.tolist() == [[0, 1], [0, 0]]


def test_statistics_refuse_what_the_grammar_lacks() -> None:
    with pytest.raises(UserError, match=r"the class 'cars', but there is no such class\. Did you mean 'car'"):
        ObjectCount("cars").measure(two_roads(), GRAMMAR.classes)
    with pytest.raises(UserError, match=r"parent_indices\[0\] must be at least 1, not 0"):
        ChildCount("car", "Road", [0], "cars")


@pytest.mark.parametrize("mean", [0, -1, math.nan, 750])
def test_means_that_no_road_has_room_for_are_refused(mean: float) -> None:
    with pytest.raises(UserError, match=r"mean_first must be (greater than 0|finite|at most 100), not"):
        BusyFirstRoad(mean_first=mean)


# --- layouts ---


@every_layout
def test_layouts_keep_the_structure_and_add_scenery(layout: ParameterPrior) -> None:
    before = scenes(UniformTraffic(), 300)
    after = layout.sample(before, rng())
    for i in range(300):
        n, more = int(before.mask[i].sum()), int(after.mask[i].sum())
        assert after.classes[i, :n].equal(before.classes[i, :n]) and after.parents[i, :n].equal(before.parents[i, :n])
        assert (after.classes[i, n:more] >= HOUSE).all() and (after.parents[i, n:] == -1).all()
    added = after.counts(4)[:, 2:].float().mean(0)
    assert after.counts(4)[:, :2].equal(before.counts(2)) and (added > 1).all()


@every_layout
def test_cars_stand_on_their_road_and_scenery_does_not(layout: ParameterPrior) -> None:
    drawn = layout.sample(scenes(BusyFirstRoad(), 500), rng())
    y, parents = drawn.attributes["y"], drawn.parents.clamp(min=0)
    off = (y - y.gather(1, parents)).abs()[drawn.classes == CAR]
    assert off.max() < ROAD_WIDTH / 2
    for kind, half in ((HOUSE, 2.5), (TREE, 1.4)):
        gap = (y[:, :, None] - y[:, None]).abs()
        pairs = (drawn.classes == kind)[:, :, None] & (drawn.classes == ROAD)[:, None]
        assert gap[pairs].min() > ROAD_WIDTH / 2 + half


@every_layout
def test_roads_come_in_order_and_within_sight(layout: ParameterPrior) -> None:
    drawn = layout.sample(scenes(UniformTraffic(max_roads=7), 500), rng())
    y = drawn.attributes["y"].masked_fill(drawn.classes != ROAD, torch.nan)
    for row in y:
        row = row[~row.isnan()]
        assert (
            (row.diff() > 0).all()
            and (row >= ROAD_WIDTH / 2 - 1e-3).all()
            and (row <= 64 - ROAD_WIDTH / 2 + 1e-3).all()
        )


def test_a_road_lies_the_drawn_distance_behind_the_last() -> None:
    drawn = ScatteredCars(road_distance=(11.0, 13.0)).sample(scenes(UniformTraffic(max_cars=0), 500), rng())
    y = drawn.attributes["y"]
    gaps = torch.cat([row[kind == ROAD].diff() for row, kind in zip(y, drawn.classes, strict=True)])
    assert gaps.min() >= 11 and gaps.max() <= 13 and stats.kstest((gaps - 11) / 2, "uniform").pvalue > 1e-3


def nearest(drawn: SceneBatch) -> torch.Tensor:
    """Distance of each car to the nearest other."""
    place = torch.stack([drawn.attributes["x"], drawn.attributes["y"]], -1)
    apart = torch.cdist(place, place)
    car = drawn.classes == CAR
    no_pair = ~(car[:, :, None] & car[:, None]) | torch.eye(car.shape[1], dtype=torch.bool)
    return apart.masked_fill(no_pair, torch.inf).amin(2)[car]


def test_scattered_cars_turn_anyhow_and_do_not_hide_each_other() -> None:
    drawn = ScatteredCars().sample(scenes(UniformTraffic(4, 20), 500), rng())
    angle = drawn.attributes["angle"][drawn.classes == CAR]
    assert stats.kstest((angle / (2 * math.pi) + 0.5).numpy(), "uniform").pvalue > 1e-3
    assert nearest(drawn).min() > 3


def test_a_fraction_of_scenes_has_cars_aligned_with_their_lane() -> None:
    scattered = scenes(UniformTraffic(), 1000)
    plain, some = (ScatteredCars(aligned_fraction=share).sample(scattered, rng()) for share in (0.0, 0.3))
    turned = ((plain.attributes["angle"] != some.attributes["angle"]) & (some.classes == CAR)).any(1)
    there = (some.classes == CAR).any(1)
    assert stats.binomtest(int(turned.sum()), int(there.sum()), 0.3).pvalue > 1e-3
    aligned = (some.classes == CAR) & turned[:, None]
    y, angle = some.attributes["y"] - some.parent_values(some.attributes["y"]), some.attributes["angle"]
    assert torch.equal(angle.cos()[aligned] > 0, y[aligned] > 0)  # who drives right keeps to the right
    assert angle.sin()[aligned].abs().max() <= 0.0301
    with pytest.raises(UserError, match=r"aligned_fraction must be at most 1, not 1.5"):
        ScatteredCars(aligned_fraction=1.5)


def test_places_of_scattered_cars_are_uniform() -> None:
    """One car is uniform along its road; two on a lane are as far apart as uniform draws that don't overlap."""
    alone = ScatteredCars().sample(scenes_from_derivations(GRAMMAR, torch.tensor([[0, 1, 3, 4, 5, 2]] * 2000)), rng())
    x = alone.attributes["x"][alone.classes == CAR]
    assert stats.kstest(((x - MIN_SPACING / 2) / (64 - MIN_SPACING)).numpy(), "uniform").pvalue > 1e-3
    pairs = ScatteredCars().sample(
        scenes_from_derivations(GRAMMAR, torch.tensor([[0, 1, 3, 4, 4, 5, 2]] * 4000)), rng()
    )
    x, y = (pairs.attributes[name][pairs.classes == CAR].view(-1, 2) for name in ("x", "y"))
    same = (y[:, 0] - y[:, 1]).abs() < 1.0
    gap = ((x[:, 0] - x[:, 1]).abs()[same] - MIN_SPACING) / (64 - 2 * MIN_SPACING)
    assert stats.kstest(gap.numpy(), stats.beta(1, 2).cdf).pvalue > 1e-3


def test_spaced_cars_keep_their_lane_and_distance() -> None:
    drawn = SpacedCars().sample(scenes(BusyFirstRoad(), 500), rng())
    car = drawn.classes == CAR
    y = drawn.attributes["y"]
    across, angle = (y - y.gather(1, drawn.parents.clamp(min=0)))[car], drawn.attributes["angle"][car]
    rightwards = angle.abs() < math.pi / 2
    assert (across[rightwards] > 0).all() and (across[~rightwards] < 0).all()  # who drives right keeps to the right
    assert (angle[rightwards].abs() <= 0.03).all() and (angle[~rightwards].abs() >= math.pi - 0.03 - 1e-6).all()
    spread = nearest(drawn).quantile(0.01)
    assert spread > 3
    one_each = SpacedCars().sample(scenes_from_derivations(GRAMMAR, torch.tensor([[0, 1, 3, *[4] * 9, 5, 2]])), rng())
    x = one_each.attributes["x"][0][one_each.classes[0] == CAR]
    for lane in (x[0::2], x[1::2]):
        assert lane.diff().min() >= MIN_SPACING - 1e-3


# --- how cars are spaced ---


def row(*spacing: float, extent: float = 64.0) -> list[float]:
    """Places of cars on one lane of a road across 64 metres, the later in the scene the further to the right."""
    n = len(spacing)
    classes, parents = torch.tensor([[ROAD, *[CAR] * n]]), torch.tensor([[-1, *[0] * n]])
    x = torch.tensor([[extent / 2, *[float(k) for k in range(n)]]])
    y = torch.tensor([[20.0, *[21.8] * n]])
    scenes_ = SceneBatch(classes, parents, {"x": x, "y": y, "spacing": torch.tensor([[0.0, *spacing]])})
    return ScatteredCars(extent).derive_attributes(scenes_).attributes["x"][0, 1:].tolist()


def test_the_spacing_of_scattered_cars_is_uniform_and_that_of_neighbours_independent() -> None:
    drawn = ScatteredCars().sample(scenes(UniformTraffic(4, 8), 3000), rng())
    lanes, car = Lanes.from_scenes(drawn, 64.0), drawn.classes == CAR
    spacing = drawn.attributes["spacing"]
    for left in (1, 2, 3, 4):
        of = car & (lanes.left == left)
        assert of.sum() > 500 and stats.kstest(spacing[of].numpy(), "uniform").pvalue > 1e-3
    just_behind = lanes.place[:, :, None] == lanes.place[:, None] + 1
    ahead = car[:, :, None] & (lanes.lane[:, :, None] == lanes.lane[:, None]) & just_behind
    b, i, j = ahead.nonzero().unbind(1)
    assert len(b) > 2000 and abs(stats.spearmanr(spacing[b, i], spacing[b, j]).statistic) < 0.05


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_cars_at_even_distances_are_spaced_nearly_alike(n: int) -> None:
    """In rows with half a gap at either end, as the target's; and these are the figures that the docstring gives."""
    middle, room = [(k + 0.5) / n for k in range(n)], 64 - n * MIN_SPACING
    before = [0.0, *middle[:-1]]
    spacing = [1 - (1 - (m - b) / (1 - b)) ** (n - k) for k, (m, b) in enumerate(zip(middle, before, strict=True))]
    assert row(*spacing) == pytest.approx([(k + 0.5) * MIN_SPACING + room * m for k, m in enumerate(middle)], abs=1e-3)
    assert spacing[0] == pytest.approx(0.5) if n == 1 else 0.39 < spacing[0] < 0.5
    assert all(0.63 < s < 0.67 for s in spacing[1:])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=18))
def test_cars_keep_their_distance_whatever_their_spacing(spacing: list[float]) -> None:
    x = row(*spacing)
    pitch = min(MIN_SPACING, 64 / len(x))
    assert x[0] >= pitch / 2 - 1e-3 and x[-1] <= 64 - pitch / 2 + 1e-3
    assert all(b - a >= pitch - 1e-3 for a, b in itertools.pairwise(x))


@every_layout
def test_places_are_differentiable_in_spacing(layout: ParameterPrior) -> None:
    drawn = layout.sample(scenes(UniformTraffic(3, 6), 20), rng())
    spacing = drawn.attributes["spacing"].clamp(0.05, 0.95).double().requires_grad_()
    drawn = drawn.with_attributes(**{name: values.double() for name, values in drawn.attributes.items()})
    ahead = torch.randn(spacing.shape, generator=rng(1), dtype=torch.double)

    def total(spacing: Tensor) -> Tensor:
        return (layout.derive_attributes(drawn.with_attributes(spacing=spacing)).attributes["x"] * ahead).sum()

    (gradient,) = torch.autograd.grad(total(spacing), spacing)
    step = 1e-6 * torch.randn(spacing.shape, generator=rng(2), dtype=torch.double)
    slope = (total(spacing + step) - total(spacing - step)).item() / 2
    assert slope == pytest.approx((gradient * step).sum().item(), rel=1e-4)
    assert not gradient[drawn.classes != CAR].any() and gradient[drawn.classes == CAR].any()
    most = torch.ones_like(spacing).requires_grad_()
    total(most).backward()
    assert most.grad is not None and most.grad.isfinite().all()


@every_layout
def test_scenes_without_roads_have_scenery(layout: ParameterPrior) -> None:
    drawn = layout.sample(scenes_from_derivations(GRAMMAR, torch.tensor([[0, 2]] * 50)), rng())
    assert not (drawn.classes == ROAD).any() and (drawn.classes == TREE).any()
    assert all(values.isfinite().all() for values in drawn.attributes.values())


@pytest.mark.parametrize(("houses", "trees"), [(0, 0), (0, 3), (3, 0)])
def test_scenery_may_be_left_out(houses: int, trees: int) -> None:
    drawn = ScatteredCars(max_houses=houses, max_trees=trees).sample(scenes(UniformTraffic(), 50), rng())
    assert bool((drawn.classes == HOUSE).any()) == bool(houses) and bool((drawn.classes == TREE).any()) == bool(trees)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"road_distance": (5.0, 9.0)}, r"road_distance\[0\] must be at least 8.2, not 5"),
        ({"max_houses": 40}, "max_houses must lie between 0 and 6 on 64.0 m, not be 40"),
    ],
)
def test_impossible_layouts(given_: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ScatteredCars(**given_)
