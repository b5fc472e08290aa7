"""Attributes are drawn by ranges and histograms; nested objects follow their parent; boxes are kept apart."""

from typing import Any

import pytest
import torch
from helpers import rng
from scipy import stats

from ms2.contracts import CONTRACTS, check
from ms2.core.errors import UserError
from ms2.priors.histogram_placement import HistogramPlacement
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.multimnist import DigitCanvas, MultiMNIST, UniformDigits

RANGES = {
    "plate": {"x": (10.0, 90.0), "y": (10.0, 90.0), "size": (20.0, 20.0)},
    "pea": {"x": (0.0, 100.0), "y": (0.0, 100.0)},
}


def table_of(*classes: int, n: int = 400) -> SceneBatch:
    """Scenes of these classes; peas are on the last plate before them, and those before all plates on none."""
    parents, last = [], -1
    for index, label in enumerate(classes):
        parents.append(last if label == 1 else -1)
        last = index if label == 0 else last
    return SceneBatch(torch.tensor([classes]).expand(n, -1), torch.tensor([parents]).expand(n, -1))


def drawn(scenes: SceneBatch, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    placed = HistogramPlacement(RANGES, **settings).sample(scenes, rng())
    return placed.attributes["x"], placed.attributes["y"]


def test_uniform_in_a_range_and_by_a_histogram() -> None:
    x, y = drawn(table_of(0, 1, -1), histograms={"plate": {"y": [0, 1, 3, 0]}})
    assert stats.kstest((x[:, 0] - 10) / 80, "uniform").pvalue > 1e-3
    assert stats.kstest(x[:, 1] / 100, "uniform").pvalue > 1e-3
    # 30..50 with probability 1/4, 50..70 with 3/4
    cdf = stats.rv_histogram(([0, 1, 3, 0], [10, 30, 50, 70, 90]))
    assert stats.kstest(y[:, 0], cdf.cdf).pvalue > 1e-3
    assert (x[:, 2] == 0).all() and (y[:, 2] == 0).all()


def test_positions_relative_to_a_parent() -> None:
    scenes = table_of(1, 0, 1)
    x, y = drawn(scenes, offsets={"pea": {"x": (-5.0, 5.0), "y": (0.25, 0.5)}}, units={"pea": {"y": "size"}})
    assert stats.kstest((x[:, 2] - x[:, 1]) / 10 + 0.5, "uniform").pvalue > 1e-3
    assert stats.kstest((y[:, 2] - y[:, 1]) / 5 - 1, "uniform").pvalue > 1e-3  # 5 to 10 below, of a size of 20
    assert stats.kstest(x[:, 0] / 100, "uniform").pvalue > 1e-3, "a pea without a plate is anywhere"


def test_positions_stay_within_the_range() -> None:
    x, _ = drawn(table_of(0, 1), offsets={"pea": {"x": (-50.0, -40.0)}})
    assert x[:, 1].min() == 0 and (x[:, 1] <= 50).all()


def test_boxes_are_kept_apart_and_the_larger_ones_stay() -> None:
    scenes, pairs = table_of(1, 0, 0, 0), [("plate", "plate"), ("pea", "plate")]
    settings: dict[str, Any] = {"extents": {"plate": (20.0, 20.0), "pea": (2.0, 2.0)}}

    def overlapping(**more: Any) -> list[float]:
        x, y = drawn(scenes, **settings, **more)
        near = [((x[:, i] - x[:, j]).abs() < r) & ((y[:, i] - y[:, j]).abs() < r) for i, j, r in OF_PAIRS]
        return [float(one.float().mean()) for one in near]

    assert all(share > 0.03 for share in overlapping())
    assert all(share < 0.003 for share in overlapping(apart=pairs))
    apart, alone = (drawn(scenes, **settings, apart=some)[0][:, 1] for some in (pairs, []))
    assert bool((apart == alone).all()), "the first plate is where it would be"


OF_PAIRS = [(0, 1, 11), (1, 2, 20), (1, 3, 20), (2, 3, 20)]
"""Two objects, and the distance below which they overlap."""


def test_siblings_are_numbered_from_top_to_bottom() -> None:
    scenes = table_of(0, 1, 0, 1, 0, -1)
    x, y = drawn(scenes, ascending={"plate": "y"}, offsets={"pea": {"x": (1.0, 2.0), "y": (0.0, 0.0)}})
    assert (y[:, 0] <= y[:, 2]).all() and (y[:, 2] <= y[:, 4]).all()
    assert torch.equal(y[:, [1, 3]], y[:, [0, 2]]), "peas go with their plates"
    assert (x[:, [1, 3]] - x[:, [0, 2]] >= 0.999).all()
    unsorted = drawn(scenes)[1][:, [0, 2, 4]]
    assert torch.equal(unsorted.sort(1).values, y[:, [0, 2, 4]]), "the same places in another order"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"histograms": {"plat": {"x": [1.0]}}}, "there are no ranges of a class 'plat'. Did you mean 'plate'?"),
        ({"histograms": {"pea": {"size": [1.0]}}}, "'pea' has no range of 'size'"),
        ({"histograms": {"pea": {"x": [0.0, 0.0]}}}, "the histogram of pea's x must have a weight above 0"),
        ({"offsets": {"pea": {"x": (1.0, 0.0)}}}, "the range of pea's x must be two values in ascending order"),
        ({"units": {"pea": {"x": "width"}}}, "units name 'width', of which no class has a range"),
        ({"apart": [("pea", "pea")]}, "'pea' is kept apart from others: give its extents"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        HistogramPlacement(RANGES, **settings)
    assert said in str(error.value)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_world_of_it_keeps_all_contracts(name: str) -> None:
    digits = MultiMNIST().classes
    prior = HistogramPlacement(
        {digit: {"x": (0.0, 1.0), "y": (0.0, 1.0), "example": (0.0, 1.0)} for digit in digits},
        {"1": {"y": [1.0, 0.0, 2.0]}},
        extents=dict.fromkeys(digits, (0.3, 0.3)),
        apart=[("1", digit) for digit in digits],
        ascending={"2": "x"},
    )
    world = World(MultiMNIST(), UniformDigits(4), prior, DigitCanvas(canvas_size=40, digit_size=12))
    assert check(CONTRACTS[name], world, rng()).passed
