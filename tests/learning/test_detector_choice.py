"""The choice of a detector's score and least height, from errors that are made up and from a world of bars."""

from collections.abc import Callable

import pytest
import torch
from helpers import bar_counts, bars

from ms2.features.detection.detector_errors import DetectorErrors
from ms2.learning.detector_choice import HEIGHTS, SCORES, best_score, choose, render_errors


def made_up(
    recall: Callable[[float, float], float], false: Callable[[float], int], number: int = 1000
) -> DetectorErrors:
    """Errors by score: the fraction of found objects by score and height, and the number of false boxes by score."""
    heights = torch.linspace(5, 105, number)
    draw = torch.rand(number, generator=torch.Generator().manual_seed(0))
    return {
        score: DetectorErrors(
            heights,
            draw < torch.tensor([recall(score, float(h)) for h in heights]),
            torch.full((false(score),), 60.0),
        )
        for score in SCORES
    }


def by_class(**errors: dict[float, DetectorErrors]) -> dict[float, dict[str, DetectorErrors]]:
    return {score: {name: some[score] for name, some in errors.items()} for score in SCORES}


def test_the_least_height_is_where_recall_is_saturated() -> None:
    steep = made_up(lambda score, height: 0.9 if height >= 32 else 0.3, lambda score: 0)
    choice = choose(by_class(car=steep), 1)["car"]
    assert choice.min_height == 32
    assert len(choice.errors.heights) == (torch.linspace(5, 105, 1000) >= 32).sum()
    flat = made_up(lambda score, height: 0.6, lambda score: 0)
    both = choose(by_class(car=flat, bus=steep), 1)
    assert both["bus"].min_height == 32 and both["car"].min_height == HEIGHTS[0]


def test_of_rare_and_unseen_classes_only_the_largest_objects_count() -> None:
    steep = made_up(lambda score, height: 0.9 if height >= 32 else 0.3, lambda score: 0)
    rare = made_up(lambda score, height: 0.9 if height >= 90 else 0.3, lambda score: 0, number=20)
    unseen = made_up(lambda score, height: 0.0, lambda score: 0)
    choice = choose(by_class(car=steep, bus=rare, cat=unseen), 1)
    assert [choice[name].min_height for name in ("car", "bus", "cat")] == [32, HEIGHTS[-1], HEIGHTS[-1]]
    assert choice["bus"].trials == []


def test_recall_and_false_boxes_from_the_least_height_on_are_measured() -> None:
    errors = made_up(lambda score, height: 0.8 if height >= 32 else 0.3, lambda score: 30)
    choice = choose(by_class(car=errors), 10)["car"]
    assert choice.false_boxes == 3 and choice.min_height == 32
    assert choice.recall.ceiling == pytest.approx(0.8, abs=0.05) and choice.recall.half_height < 32


def test_the_score_has_the_best_f1_or_nearly_and_is_high() -> None:
    """False boxes vanish from a score of 0.4 on, and from 0.6 on objects do."""
    errors = made_up(lambda score, height: 1.0 if score < 0.6 else 0.5, lambda score: 500 if score < 0.4 else 0)
    assert best_score(by_class(car=errors), "car", 8) == 0.55
    slowly = made_up(lambda score, height: 1 - score / 100, lambda score: 0)
    assert best_score(by_class(car=slowly), "car", 8) == SCORES[-1]


def test_errors_in_renders_are_those_of_the_detector() -> None:
    errors = render_errors(bar_counts("012", blind_to=2), bars(), num_images=40, seed=0)
    assert set(errors) == set(SCORES)
    for by_name in errors.values():
        assert by_name["0"].recall == 1 and by_name["2"].recall == 0 and len(by_name["2"].heights) > 0
    assert torch.equal(render_errors(bar_counts("012"), bars(), 40, 0)[0.5]["1"].heights, errors[0.5]["1"].heights)


@pytest.mark.parametrize("number", [5, 17])
def test_as_many_images_are_rendered_as_are_asked_for(number: int) -> None:
    counts = bar_counts("0", min_visibility=0.0)
    seen: list[int] = []
    counts.detector.register_forward_hook(lambda module, given, found: seen.append(len(given[0])))
    render_errors(counts, bars(), number, 0)
    assert sum(seen) == number
