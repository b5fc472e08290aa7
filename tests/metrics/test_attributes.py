"""Tests of attributes' distributions: scipy, best assignments and plain loops as reference, closed forms, coverage."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import available
from ms2.metrics import attribute_distances, attributes
from ms2.metrics.attribute_distances import (
    AttributeSample,
    attribute_noise_floor,
    circular_wasserstein,
    compare_attributes,
    wasserstein_1d,
)
from ms2.metrics.attributes import AttributeValue, NeighbourGap
from ms2.metrics.intervals import Interval
from ms2.scene.batch import SceneBatch

CLASSES = ("Road", "car", "house")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def normal(n: int, generator: torch.Generator, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.double) * scale + shift


def measured(of_scenes: Tensor, generator: torch.Generator, spread: float = 0.0) -> AttributeSample:
    """Each scene's value, and others about it: three per scene on average, none in some."""
    counts = torch.poisson(torch.full((len(of_scenes),), 3.0), generator=generator).long()
    scene = torch.arange(len(of_scenes)).repeat_interleave(counts)
    return AttributeSample(of_scenes[scene] + normal(len(scene), generator, scale=spread), scene, len(of_scenes))


def one_each(values: Tensor) -> AttributeSample:
    return AttributeSample(values, torch.arange(len(values)), len(values))


# --- what is measured ---


def scenes_by_hand() -> SceneBatch:
    """Two roads with three cars and one, and a house; a road without cars."""
    return SceneBatch(
        classes=torch.tensor([[0, 1, 1, 1, 0, 1, 2], [0, -1, -1, -1, -1, -1, -1]]),
        parents=torch.tensor([[-1, 0, 0, 0, -1, 4, -1], [-1] * 7]),
        attributes={
            "x": torch.tensor([[0.0, 9, 2, 5, 0, 7, 1], [0.0, *[math.nan] * 6]]),
            "y": torch.tensor([[10.0, 11, 9, 11.5, 30, 29, 40], [20.0, *[math.nan] * 6]]),
            "angle": torch.tensor([[0.1, 0.2, math.pi, -3.0, 3.0, -3.0, 1.0], [0.5, *[math.nan] * 6]]),
        },
        environment={"sun": torch.tensor([0.5, -3.0]), "light": torch.tensor([0.9, 1.0])},
    )


def plain(found: AttributeSample) -> list[tuple[int, float]]:
    assert found.values.dtype == torch.double
    return [(scene, round(value, 4)) for scene, value in zip(found.scene.tolist(), found.values.tolist(), strict=True)]


def test_attributes_of_objects_by_their_classes() -> None:
    scenes = scenes_by_hand()
    cars = [(0, 11.0), (0, 9.0), (0, 11.5), (0, 29.0)]
    assert plain(AttributeValue("y", "y", "car").measure(scenes, CLASSES)) == cars
    assert plain(AttributeValue("y", "y", ["car", "house"]).measure(scenes, CLASSES)) == [*cars, (0, 40.0)]
    everything = [(0, 10.0), *cars[:3], (0, 30.0), cars[3], (0, 40.0), (1, 20.0)]
    assert plain(AttributeValue("y", "y").measure(scenes, CLASSES)) == everything
    # objects whose class has no name don't count
    assert plain(AttributeValue("y", "y").measure(scenes, CLASSES[:2])) == [v for v in everything if v[1] != 40]
    assert plain(AttributeValue("y", "y", "house").measure(scenes[1:], CLASSES)) == []


def test_attributes_relative_to_parents() -> None:
    scenes = scenes_by_hand()
    offsets = AttributeValue("y", "offset", "car", relative_to_parent=True, unit="m").measure(scenes, CLASSES)
    assert plain(offsets) == [(0, 1.0), (0, -1.0), (0, 1.5), (0, -1.0)]
    # only cars have parents
    assert plain(AttributeValue("y", "offset", relative_to_parent=True).measure(scenes, CLASSES)) == plain(offsets)


def test_angles_are_degrees_and_their_differences_too() -> None:
    scenes = scenes_by_hand()
    angle = AttributeValue("angle", "angle", "car", in_degrees=True)
    assert (angle.unit, angle.period) == ("°", 360)
    expected = [math.degrees(0.2), -180, math.degrees(-3), math.degrees(-3)]
    assert angle.measure(scenes, CLASSES).values.tolist() == pytest.approx(expected, abs=1e-4)
    turned = AttributeValue("angle", "turned", "car", relative_to_parent=True, in_degrees=True).measure(scenes, CLASSES)
    expected = [math.degrees(0.1), 180 - math.degrees(0.1), math.degrees(-3.1), 360 - math.degrees(6)]
    assert turned.values.tolist() == pytest.approx(expected, abs=1e-4)


def test_attributes_of_the_scene_as_a_whole() -> None:
    scenes = scenes_by_hand()
    assert plain(AttributeValue("light", "light", "environment").measure(scenes, CLASSES)) == [(0, 0.9), (1, 1.0)]
    sun = AttributeValue("sun", "sun", "environment", in_degrees=True).measure(scenes, CLASSES)
    assert sun.values.tolist() == pytest.approx([math.degrees(0.5), math.degrees(-3)], abs=1e-4)


def test_names_for_people() -> None:
    assert (
        AttributeValue("y", "y", "car", relative_to_parent=True, unit="m").title == "y of car relative to their parents"
    )
    assert AttributeValue("y", "y", ["car", "house"]).title == "y of car, house"
    assert AttributeValue("y", "y").title == "y of objects"
    assert AttributeValue("x", "x", unit="m").unit == "m" and AttributeValue("x", "x").period is None
    assert NeighbourGap("car", "x", "gap", unit="m").title == "x from car to next car"
    assert {"AttributeValue", "NeighbourGap"} <= set(available("attribute_statistics"))


def test_gap_by_hand() -> None:
    scenes = scenes_by_hand()
    # from 9 there is none ahead, and the car at 7 stands on another road
    assert plain(NeighbourGap("car", "x", "gap").measure(scenes, CLASSES)) == [(0, 3.0), (0, 4.0)]
    # that at 2 is alone on its lane
    assert plain(NeighbourGap("car", "x", "gap", group_by="y", tolerance=1.8).measure(scenes, CLASSES)) == [(0, 4.0)]
    # roads hang from the scene, and both are at 0
    assert plain(NeighbourGap("Road", "x", "gap").measure(scenes, CLASSES)) == [(0, 0.0)]
    assert plain(NeighbourGap("house", "x", "gap").measure(scenes, CLASSES)) == []


def some_scenes(b: int, n: int, generator: torch.Generator) -> SceneBatch:
    """Objects of all classes in any order with any parents; places are whole numbers, so that some are the same."""
    used = torch.arange(n) < torch.randint(0, n + 1, (b, 1), generator=generator)
    classes = torch.randint(0, 3, (b, n), generator=generator).where(used, -1)
    before = (torch.rand(b, n, generator=generator) * torch.arange(n).clamp(max=3)).long()
    parents = before.where(used & (torch.rand(b, n, generator=generator) < 0.8), -1)
    x = torch.randint(0, 12, (b, n), generator=generator).float().where(used, math.nan)
    y = (4 * torch.rand(b, n, generator=generator)).where(used, math.nan)
    return SceneBatch(classes, parents, {"x": x, "y": y})


def gaps_by_loops(scenes: SceneBatch, number: int, tolerance: float) -> list[tuple[int, float]]:
    found = []
    for b in range(len(scenes)):
        objects = [
            (scenes.attributes["x"][b, i].item(), i, scenes.parents[b, i].item(), scenes.attributes["y"][b, i].item())
            for i in range(scenes.classes.shape[1])
            if scenes.classes[b, i] == number
        ]
        for x, i, parent, y in sorted(objects, key=lambda this: this[1]):
            for other_x, j, other_parent, other_y in sorted(objects):
                if (other_x, j) > (x, i) and other_parent == parent and abs(y - other_y) < tolerance:
                    found.append((b, other_x - x))
                    break
    return found


@settings(max_examples=30)
@given(st.integers(0, 5), st.integers(1, 14), st.integers(0, 2**16))
def test_gap_is_what_plain_loops_find(b: int, n: int, seed: int) -> None:
    scenes = some_scenes(b, n, rng(seed))
    for number, of in enumerate(CLASSES):
        assert plain(NeighbourGap(of, "x", "gap").measure(scenes, CLASSES)) == gaps_by_loops(scenes, number, math.inf)
        lanes = NeighbourGap(of, "x", "gap", group_by="y", tolerance=1.3).measure(scenes, CLASSES)
        assert plain(lanes) == gaps_by_loops(scenes, number, 1.3)


def test_parts_of_the_scenes_give_the_same_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = some_scenes(40, 14, rng(1))
    gap = NeighbourGap("car", "x", "gap", group_by="y", tolerance=1.3)
    whole = plain(gap.measure(scenes, CLASSES))
    assert len(whole) > 10
    monkeypatch.setattr(attributes, "MAX_PAIRS_PER_CHUNK", 100)
    assert plain(gap.measure(scenes, CLASSES)) == whole


@pytest.mark.parametrize(
    ("statistic", "message"),
    [
        (AttributeValue("y", "y", "cart"), "'cart', but there is no such class. Did you mean 'car'"),
        (AttributeValue("y", "y", ["car", "hose"]), "no such class. Did you mean 'house'"),
        (AttributeValue("sun", "sun", "enviroment"), "Did you mean 'environment'"),
        (AttributeValue("angel", "a"), "'angel' is measured, but objects have none. Did you mean 'angle'"),
        (AttributeValue("sum", "s", "environment"), "but scenes as a whole have none. Did you mean 'sun'"),
        (NeighbourGap("cars", "x", "gap"), "'cars', but there is no such class. Did you mean 'car'"),
        (NeighbourGap("car", "z", "gap"), "'z' is measured, but objects have none. Available: angle, x, y"),
        (
            NeighbourGap("car", "x", "gap", group_by="Y", tolerance=1),
            "'Y' is measured, but objects have none. Did you mean 'y'",
        ),
    ],
)
def test_unknown_names_are_told_with_the_nearest(statistic: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        statistic.measure(scenes_by_hand(), CLASSES)
    assert message in str(error.value)


def test_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="no parent that they could be relative to"):
        AttributeValue("sun", "sun", "environment", relative_to_parent=True)
    with pytest.raises(UserError, match='classes must name a class, as in classes="car"'):
        AttributeValue("y", "y", [])
    for options in ({"group_by": "y"}, {"tolerance": 1.8}, {"group_by": "y", "tolerance": 0}):
        with pytest.raises(UserError, match=r'try group_by="y", tolerance=1\.8'):
            NeighbourGap("car", "x", "gap", **options)
    with pytest.raises(UserError, match="tolerance must be at least 0, not -1"):
        NeighbourGap("car", "x", "gap", group_by="y", tolerance=-1)


# --- distances ---


@st.composite
def samples(draw: st.DrawFn, low: int = -20, high: int = 20) -> tuple[Tensor, Tensor]:
    """Values, some of them the same, and whole weights, some of them 0."""
    n = draw(st.integers(1, 8))
    values = draw(st.lists(st.integers(low, high), min_size=n, max_size=n))
    weights = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n).filter(any))
    return double(*values) / 3, torch.tensor(weights)


@settings(max_examples=200)
@given(samples(), samples())
def test_distance_on_a_line_agrees_with_scipy(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    (x, p), (y, q) = one, other
    expected = wasserstein_distance(x.numpy(), y.numpy(), p.numpy(), q.numpy())
    assert wasserstein_1d(x, y, p, q) == pytest.approx(expected, abs=1e-12)
    assert wasserstein_1d(x, y, 7 * p, q.double() / 3) == pytest.approx(expected, abs=1e-12)
    assert wasserstein_1d(x, y) == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), abs=1e-12)
    assert wasserstein_1d(x, x, p, p) == pytest.approx(0, abs=1e-12)


def assignment(x: Tensor, y: Tensor, p: Tensor, q: Tensor, period: float) -> float:
    """Optimal transport of unit masses over the shorter arcs."""
    x, y = (v.repeat_interleave(w) for v, w in ((x, p * int(q.sum())), (y, q * int(p.sum()))))
    arcs = (x[:, None] - y[None]).abs() % period
    costs = torch.minimum(arcs, period - arcs).numpy()
    return float(costs[linear_sum_assignment(costs)].mean())


@settings(max_examples=200)
@given(samples(), samples(), st.sampled_from([2.0, 5.0, 13.0]))
def test_distance_on_a_circle_is_that_of_the_best_assignment(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], period: float
) -> None:
    (x, p), (y, q) = one, other
    expected = assignment(x, y, p, q, period)
    assert circular_wasserstein(x, y, period, p, q) == pytest.approx(expected, abs=1e-10)
    assert circular_wasserstein(y, x, period, q, p) == pytest.approx(expected, abs=1e-10)
    assert expected <= period / 2


def test_distance_on_a_circle_is_that_of_the_best_cut() -> None:
    """On a line that begins at any of the values, and with F - G shifted by what flows over the cut."""
    g, period = rng(3), 7.0
    x, y = normal(300, g, scale=3.0) % period, normal(200, g, scale=1.0) % period
    places = torch.cat([x, y]).sort().values
    lengths = torch.diff(places, append=places[:1] + period)
    gap = (x[None] <= places[:, None]).double().mean(1) - (y[None] <= places[:, None]).double().mean(1)
    shifted = (gap[None] - gap[:, None]).abs() @ lengths
    distance = circular_wasserstein(x, y, period)
    assert distance == pytest.approx(shifted.min().item(), abs=1e-10)
    assert 0.1 < distance < wasserstein_1d(x, y)


def test_distances_of_a_shift_are_its_length() -> None:
    x = normal(500, rng(1), scale=20)
    assert wasserstein_1d(x, x - 7) == pytest.approx(7)
    assert circular_wasserstein(x, x - 7, 360) == pytest.approx(7)
    assert circular_wasserstein(x, x + 353, 360) == pytest.approx(7)


def test_the_circle_closes() -> None:
    assert circular_wasserstein(double(359), double(1), 360) == pytest.approx(2)
    assert wasserstein_1d(double(359), double(1)) == pytest.approx(358)
    assert circular_wasserstein(double(-180), double(180), 360) == 0
    assert circular_wasserstein(double(10), double(190), 360) == pytest.approx(180)
    assert circular_wasserstein(double(0), torch.arange(0, 360), 360) == pytest.approx(90)
    # halves that face each other, turned by an eighth: each moves by 45°
    assert circular_wasserstein(double(0, 180), double(45, 225), 360) == pytest.approx(45)


@settings(max_examples=50)
@given(samples(), samples(), st.floats(-100, 100))
def test_rotation_and_reflection_change_nothing(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], turn: float
) -> None:
    (x, p), (y, q) = one, other
    distance = circular_wasserstein(x, y, 5.0, p, q)
    assert circular_wasserstein(x + turn, y + turn, 5.0, p, q) == pytest.approx(distance, abs=1e-10)
    assert circular_wasserstein(-x, -y, 5.0, p, q) == pytest.approx(distance, abs=1e-10)
    assert circular_wasserstein(x, x + 5 * round(turn), 5.0, p, p) == pytest.approx(0, abs=1e-10)


def test_what_lies_close_together_is_no_further_apart_on_the_circle() -> None:
    x, y = normal(200, rng(4)), normal(300, rng(5), 0.5)
    assert circular_wasserstein(x, y, 1000) == pytest.approx(wasserstein_1d(x, y))


@pytest.mark.parametrize("values", ["spread", "steps", "one"])
def test_weighted_median_is_that_of_all_values_sorted(values: str) -> None:
    for seed in range(20):
        g = rng(seed)
        drawn = normal(2000, g) ** 5  # most of them in few of the parts
        drawn = {"spread": drawn, "steps": drawn.round(), "one": torch.zeros(2000, dtype=torch.double)}[values]
        weights = torch.rand(2000, generator=g, dtype=torch.double) ** 4
        ordered, order = drawn.sort()
        expected = ordered[torch.searchsorted(weights[order].cumsum(0), weights.sum() / 2)]
        assert attribute_distances._weighted_median(drawn, weights) == expected


def test_nothing_has_no_distance() -> None:
    nothing, something = double(), double(1, 2)
    for x, y in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert math.isnan(wasserstein_1d(x, y)) and math.isnan(circular_wasserstein(x, y, 360))


def test_values_and_weights_that_mean_nothing_are_named() -> None:
    good = double(1, 2)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="y has a value that is not finite"):
            wasserstein_1d(good, double(1, bad))
    for weights in (double(1, -1), double(0, 0), double(1, math.nan), double(1, math.inf)):
        with pytest.raises(ValueError, match="weights_x has an entry that is negative or not finite, or none above 0"):
            circular_wasserstein(good, good, 360, weights)
    for period in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="a circle has a positive circumference"):
            circular_wasserstein(good, good, period)


# --- intervals ---


def test_compare_takes_its_value_from_the_full_samples() -> None:
    g = rng(2)
    x, y = measured(normal(80, g, 150, 20), g, 1.0), measured(normal(60, g, 170, 30), g, 1.0)
    on_line = compare_attributes(x, y, None, generator=g)
    assert on_line.value == pytest.approx(wasserstein_1d(x.values, y.values))
    on_circle = compare_attributes(x, y, 60, generator=g)
    assert on_circle.value == pytest.approx(circular_wasserstein(x.values, y.values, 60))
    assert on_circle.value < on_line.value
    assert 0 < on_line.low < on_line.value < on_line.high


@pytest.mark.parametrize("period", [None, 3.0])
def test_compare_resamples_as_a_plain_bootstrap_would(period: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances by multiplicities equal those of resampled scenes written out; nothing but the upper end shows them."""
    g = rng(6)
    x, y = measured(normal(30, g), g, 0.2), measured(normal(20, g, 0.3), g, 0.2)
    rows: list[Tensor] = []
    draw = attribute_distances._resample_scenes

    def remembered(*args: Any) -> Tensor:
        rows.append(draw(*args))
        return rows[-1]

    monkeypatch.setattr(attribute_distances, "_resample_scenes", remembered)
    interval = compare_attributes(x, y, period, generator=g, resamples=40, level=0.9)
    assert [list(r.shape) for r in rows] == [[40, 30], [40, 20]]
    assert all((r.sum(1) == r.shape[1]).all() for r in rows)
    distances = []
    for a, b in zip(*rows, strict=True):
        drawn = [m.values.repeat_interleave(times[m.scene].long()) for m, times in ((x, a), (y, b))]
        one = wasserstein_1d(*drawn) if period is None else circular_wasserstein(*drawn, period)
        distances.append(one)
    assert interval.high == pytest.approx(float(np.quantile(distances, 0.95)))


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 20]), st.booleans(), st.integers(0, 2**16))
def test_interval_holds_its_value(n: int, m: int, resamples: int, circular: bool, seed: int) -> None:
    g = rng(seed)
    x, y = measured(normal(n, g).round(), g), measured(normal(m, g), g)
    interval = compare_attributes(x, y, 4.0 if circular else None, generator=g, resamples=resamples)
    if len(x.values) and len(y.values):
        assert 0 <= interval.low <= interval.value <= interval.high < math.inf
    else:
        assert all(map(math.isnan, (interval.value, interval.low, interval.high)))


def test_same_seed_same_interval_and_other_seed_another() -> None:
    x, y = measured(normal(80, rng(1)), rng(1)), measured(normal(60, rng(2)), rng(2))
    first, again, other = (compare_attributes(x, y, 9, generator=rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("period", [None, 9.0])
def test_chunks_change_nothing(period: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = measured(normal(80, rng(1)), rng(1)), measured(normal(60, rng(2), 0.4), rng(2))
    whole = compare_attributes(x, y, period, generator=rng(), resamples=30)
    monkeypatch.setattr(attribute_distances, "MAX_VALUES_PER_CHUNK", 7 * 400)
    parts = compare_attributes(x, y, period, generator=rng(), resamples=30)
    assert (parts.value, parts.low, parts.high) == pytest.approx((whole.value, whole.low, whole.high), abs=1e-12)


def test_scenes_and_not_objects_are_resampled() -> None:
    """Ten like objects per scene are no more evidence than one."""
    x, y = normal(80, rng(1)), normal(60, rng(2), 0.5)
    one = compare_attributes(one_each(x), one_each(y), None, generator=rng())
    tenfold = [
        AttributeSample(v.repeat_interleave(10), torch.arange(len(v)).repeat_interleave(10), len(v)) for v in (x, y)
    ]
    ten = compare_attributes(*tenfold, None, generator=rng())
    assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))


def test_units_and_order_of_the_values_do_not_matter() -> None:
    g = rng(3)
    x, y = measured(normal(50, g), g, 0.5), measured(normal(40, g, 0.6), g, 0.5)
    interval = compare_attributes(x, y, 5, generator=rng())
    mixed = [
        AttributeSample(m.values[i] * 10 + 3, m.scene[i], m.num_scenes)
        for m in (x, y)
        for i in [torch.randperm(len(m.scene))]
    ]
    other = compare_attributes(*mixed, 50, generator=rng())
    expected = (10 * interval.value, 10 * interval.low, 10 * interval.high)
    assert (other.value, other.low, other.high) == pytest.approx(expected)


def axes(n: int, generator: torch.Generator, share: float = 0.5) -> Tensor:
    """Degrees near 0 and 180, this share of them near 180."""
    return normal(n, generator, scale=2) + 180 * (torch.rand(n, generator=generator) < share)


@pytest.mark.parametrize(
    ("law", "change", "truth", "period"),
    [
        (normal, {}, 0.0, None),
        (normal, {"shift": 0.1}, 0.1, None),
        (normal, {"shift": 0.5}, 0.5, None),
        (normal, {"scale": 1.5}, 0.5 * math.sqrt(2 / math.pi), None),
        (normal, {"shift": 2 * math.pi}, 0.0, 2 * math.pi),
        (normal, {"shift": 6.0}, 2 * math.pi - 6, 2 * math.pi),
        (axes, {"share": 0.7}, 36.0, 360.0),
    ],
    ids=["equal", "near", "shift", "scale", "equal angles", "turned", "opposite"],
)
def test_interval_covers_the_truth(law: Any, change: dict[str, float], truth: float, period: float | None) -> None:
    """Of 40 intervals at 95 %, at most 6 may miss: a right one passes 99.7 % of seeds, and this seed is fixed.

    All values of a scene are the same, so intervals that took them as independent would be too narrow.
    """
    g = rng(7)
    results = []
    for _ in range(40):
        x, y = measured(law(150, g), g), measured(law(200, g, **change), g)
        results.append(compare_attributes(x, y, period, generator=g, resamples=100))
    assert sum(r.low - 1e-9 <= truth <= r.high + 1e-9 for r in results) >= 34
    if truth >= 0.5:  # no wider than the spread demands
        spread = torch.tensor([r.value for r in results]).std().item()
        width = torch.tensor([r.high - r.low for r in results]).mean().item()
        assert 0.8 < width / (2 * 1.96 * spread) < 1.5


def test_a_higher_level_gives_a_wider_interval() -> None:
    x, y = one_each(normal(80, rng(1))), one_each(normal(60, rng(2), 1.0))
    narrow, wide = (compare_attributes(x, y, None, generator=rng(), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low and narrow.high < wide.high


def test_the_same_values_are_at_distance_zero_and_single_scenes_have_no_width() -> None:
    x = one_each(normal(50, rng(1)))
    interval = compare_attributes(x, x, None, generator=rng())
    assert interval.low == 0 and interval.value == pytest.approx(0, abs=1e-12) and interval.high > 0
    single = compare_attributes(one_each(double(1)), one_each(double(4)), None, generator=rng())
    assert single == Interval(3.0, 3.0, 3.0)


def test_scenes_without_values_leave_something_in_every_resample() -> None:
    """Two of a hundred scenes have values, so every seventh resample would have none."""
    x = AttributeSample(double(0, 1), torch.tensor([5, 70]), 100)
    interval = compare_attributes(x, one_each(double(2, 2)), None, generator=rng())
    assert interval == Interval(1.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (AttributeSample(double(1, math.nan), torch.tensor([0, 1]), 3), "a value that is not finite"),
        (AttributeSample(double(1, math.inf), torch.tensor([0, 1]), 3), "a value that is not finite"),
        (AttributeSample(double(1, 2), torch.tensor([0]), 3), "2 values from 1 scenes"),
        (
            AttributeSample(double(1, 2), torch.tensor([0, 3]), 3),
            r"values of scenes 0..3, but 3 scenes have the numbers 0..2",
        ),
        (AttributeSample(double(1, 2), torch.tensor([-1, 0]), 3), r"values of scenes -1..0, but 3 scenes"),
    ],
)
def test_unusable_values_are_named(bad: AttributeSample, message: str) -> None:
    good = one_each(double(1, 2, 3))
    with pytest.raises(ValueError, match="generated has .*" + message):
        compare_attributes(bad, good, None, generator=rng())
    with pytest.raises(ValueError, match="target has .*" + message):
        compare_attributes(good, bad, None, generator=rng())
    with pytest.raises(ValueError, match="target has .*" + message):
        attribute_noise_floor(bad, 10, None, generator=rng())


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95.0}])
def test_compare_rejects_impossible_options(options: dict[str, Any]) -> None:
    x = one_each(double(1, 2))
    with pytest.raises(ValueError, match="try resamples=500"):
        compare_attributes(x, x, None, generator=rng(), **options)


# --- noise floor ---


@pytest.mark.parametrize("n", [100, 1000])
def test_noise_floor_matches_the_closed_form(n: int) -> None:
    """The mean of |x| of a normal x with the variance F (1 - F) (1 / n + 1 / m), integrated over the uniform law."""
    m = 2000
    target = one_each(torch.arange(m).double() / m)
    floor = attribute_noise_floor(target, n, None, generator=rng(), resamples=1000)
    assert floor == pytest.approx(math.sqrt(2 / math.pi * (1 / n + 1 / m)) * math.pi / 8, rel=0.05)


@pytest.mark.parametrize("period", [None, 360.0])
def test_noise_floor_is_what_a_perfect_model_shows(period: float | None) -> None:
    g = rng(5)
    target = measured(normal(200, g, 0, 60), g, 5.0)
    floor = attribute_noise_floor(target, 50, period, generator=g, resamples=300)
    shown, by_scene = [], [target.values[target.scene == scene] for scene in range(200)]
    for _ in range(300):
        sides = [torch.cat([by_scene[i] for i in torch.randint(200, (n,), generator=g)]) for n in (50, 200)]
        shown.append(wasserstein_1d(*sides) if period is None else circular_wasserstein(*sides, period))
    assert floor == pytest.approx(float(np.mean(shown)), rel=0.1)


def test_noise_floor_is_reproducible_and_of_nothing_is_unknown() -> None:
    target = one_each(normal(20, rng()))
    first, again, other = (attribute_noise_floor(target, 5, 9, generator=rng(seed)) for seed in (1, 1, 2))
    assert first == again and first != other
    assert math.isnan(attribute_noise_floor(one_each(double()), 5, None, generator=rng()))
    for n, resamples in ((0, 10), (5, 0)):
        with pytest.raises(ValueError, match=f"num_scenes={n} and resamples={resamples}"):
            attribute_noise_floor(target, n, None, generator=rng(), resamples=resamples)


# --- histograms ---


def test_an_attribute_without_values_has_no_histogram() -> None:
    nothing, something = one_each(double()), one_each(torch.arange(5, dtype=torch.double))
    statistic = AttributeValue("x", "x", unit="m")
    assert statistic.histogram(dict.fromkeys(("prior", "learned", "target"), nothing), CLASSES) is None
    drawn = statistic.histogram(dict.fromkeys(("prior", "learned_structure", "target"), something), CLASSES)
    assert drawn is not None and drawn.title == "x of objects (m)" and set(drawn.shares) == {"prior", "target"}
    assert all(
        sum(share) == pytest.approx(1, abs=1e-4) and len(share) == len(drawn.bins) for share in drawn.shares.values()
    )


@pytest.mark.parametrize(("low", "width", "first"), [(0, 30, "0.558"), (1000, 3, "1000.06"), (7, 0, "7.00000002")])
def test_bins_of_a_histogram_have_names_of_their_own(low: float, width: float, first: str) -> None:
    """As many digits as it takes: a chart draws bins of one name on top of each other."""
    ends = one_each(torch.tensor([low, low + width], dtype=torch.double))
    drawn = AttributeValue("x", "x").histogram({"target": ends}, CLASSES)
    assert drawn is not None and len({*drawn.bins}) == 30 and drawn.bins[0] == first
