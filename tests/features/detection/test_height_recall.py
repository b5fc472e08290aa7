"""Recall by height: the curve against its formula, its fit against a known curve, and what is drawn from it."""

import pytest
import torch
from helpers import rng
from hypothesis import given
from hypothesis import strategies as st

from ms2.core.errors import UserError
from ms2.features.detection.height_recall import MAX_SLOPE, RecallByHeight, RecallCurve, fit_recall

CURVE = RecallCurve(0.8, 30.0, 4.0)


def recall(curve: RecallCurve = CURVE, false_boxes: float = 0.0) -> RecallByHeight:
    """The same curve for cars and buses; three times as many false buses."""
    both = [dict.fromkeys(("car", "bus"), value) for value in curve]
    return RecallByHeight(*both, {"car": false_boxes, "bus": 3 * false_boxes})


def expected(curve: RecallCurve, heights: torch.Tensor) -> torch.Tensor:
    return curve.ceiling / (1 + (curve.half_height / heights) ** curve.slope)


@given(st.floats(0, 1), st.floats(1, 100), st.floats(0.1, 20), st.floats(0.1, 400))
def test_the_curve_is_that_of_its_formula(ceiling: float, half_height: float, slope: float, height: float) -> None:
    curve, heights = RecallCurve(ceiling, half_height, slope), torch.tensor([[height, height]], dtype=torch.float64)
    found = recall(curve).probability(["bus", "car"], torch.tensor([[1, -1]]), heights)
    torch.testing.assert_close(found[0, 0], expected(curve, heights[0, 0]))
    assert found[0, 1] == 0, "no object"


def test_as_many_are_drawn_as_the_curve_and_the_false_boxes_say() -> None:
    number = 20_000
    classes = torch.tensor([[0, 0, 1, -1]]).expand(number, -1)
    heights = torch.tensor([[30.0, 60.0, 30.0, 60.0]]).expand(number, -1)
    drawn = recall(false_boxes=0.1).draw(["car", "bus"], classes, heights, rng()).double()
    chance = expected(CURVE, heights[0]).double()
    means = torch.stack([chance[0] + chance[1] + 0.1, chance[2] + 0.3])
    variances = torch.stack([(chance * (1 - chance))[:2].sum() + 0.1, chance[2] * (1 - chance[2]) + 0.3])
    torch.testing.assert_close(drawn.mean(0), means, rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.var(0), variances, rtol=0.05, atol=0)


def test_a_detector_without_errors_finds_each_object() -> None:
    exact = RecallByHeight({"car": 1.0}, {"car": 1e-6}, {"car": 20.0}, {"car": 0.0})
    drawn = exact.draw(["car"], torch.tensor([[0, 0, -1], [-1, -1, -1]]), torch.full((2, 3), 5.0), rng())
    assert drawn.tolist() == [[2], [0]]


@pytest.mark.parametrize("curve", [CURVE, RecallCurve(1.0, 50.0, 8.0), RecallCurve(0.3, 20.0, 2.0)])
def test_the_fit_finds_the_curve_again(curve: RecallCurve) -> None:
    heights = 10 * 20 ** torch.rand(20_000, generator=rng())
    found = torch.rand(len(heights), generator=rng(1)) < expected(curve, heights)
    fitted = fit_recall(heights, found, 10)
    assert (expected(fitted, heights) - expected(curve, heights)).abs().max() < 0.03


def test_the_fit_of_few_objects_or_of_a_step_is_finite() -> None:
    nothing = fit_recall(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 40)
    assert nothing.half_height == pytest.approx(20), "the start"
    heights = torch.linspace(10, 100, 500)
    step = fit_recall(heights, heights > 50, 10)
    assert 45 < step.half_height < 55 and step.slope <= MAX_SLOPE and step.ceiling > 0.95
    assert (expected(fit_recall(heights, heights > 500, 10), heights) < 0.05).all(), "none is found"


def test_classes_are_those_that_are_counted() -> None:
    one = {"car": 1.0}
    with pytest.raises(UserError, match=r"ceiling has classes car, but recall\.slope has bus: name the same"):
        RecallByHeight(one, one, {"bus": 1.0}, one)
    with pytest.raises(UserError, match="recall has no numbers of truck, which the detector counts: 'ms2 probe'"):
        recall().check(["car", "truck"])
    with pytest.raises(UserError, match=r"half_height\.car must be"):
        RecallByHeight(one, {"car": 0.0}, one, one)
