"""What a detector misses and makes up, by hand."""

import pytest
import torch
from helpers import bar_counts, bars, rng

from ms2.features.detection.detections import Detections
from ms2.features.detection.detector_errors import DetectorErrors, detector_errors, join_errors

FEATURES = bar_counts("01")
LABELS = bars(3).renderer.render_labelled(bars(3).sample_prior(40, rng()))


def test_what_is_found_exactly_has_no_errors() -> None:
    errors = detector_errors(FEATURES, FEATURES.detect(LABELS.image), LABELS, 0.5)
    for name, number in (("0", 0), ("1", 1)):
        assert len(errors[name].heights) == (LABELS.classes == number).sum() > 0
        assert errors[name].recall == errors[name].precision == errors[name].f1 == 1
        assert (errors[name].heights == 4).all() and not len(errors[name].false_heights)


def test_what_is_not_found_and_what_is_made_up() -> None:
    """Bars of class 1 are found as class 0."""
    found = FEATURES.detect(LABELS.image)
    errors = detector_errors(
        FEATURES, found._replace(categories=found.categories.where(found.categories != 1, 0)), LABELS, 0.5
    )
    ones, zeros = (LABELS.classes == 1).sum(), (LABELS.classes == 0).sum()
    assert errors["1"].recall == errors["1"].precision == errors["1"].f1 == 0
    assert errors["0"].recall == 1 and len(errors["0"].false_heights) == ones
    assert errors["0"].precision == pytest.approx(float(zeros / (zeros + ones)))
    assert errors["0"].f1 == pytest.approx(float(2 * zeros / (2 * zeros + ones)))


def test_what_renders_show_alike_may_be_found_as_the_other() -> None:
    """Bars of class 1 are found as class 0, and bars of class 2 as they are."""
    features = bar_counts("012")
    found = features.detect(LABELS.image)
    confused = found._replace(categories=found.categories.where(found.categories != 1, 0))
    errors = detector_errors(features, confused, LABELS, 0.5, alike=("0", "1"))
    for name, number in (("0", 0), ("1", 1), ("2", 2)):
        assert errors[name].recall == 1 and len(errors[name].heights) == (LABELS.classes == number).sum()
        assert not len(errors[name].false_heights)
    errors = detector_errors(features, confused, LABELS, 0.5, alike=("1", "2"))
    assert errors["1"].recall == 0 and errors["2"].recall == 1


def test_an_object_is_found_once_and_only_by_a_box_that_fits() -> None:
    one = LABELS.classes == 0
    image = int(one.any(1).nonzero()[0])
    labels = type(LABELS)(*(getattr(LABELS, name)[image : image + 1] for name in LABELS.__dataclass_fields__))
    box = labels.boxes[0, int((labels.classes[0] == 0).nonzero()[0])]
    number = int((labels.classes == 0).sum())

    def errors(*boxes: torch.Tensor) -> DetectorErrors:
        some = torch.stack(boxes)[None]
        told = Detections(some, torch.ones(1, len(boxes)), torch.zeros(1, len(boxes)).long())
        return detector_errors(FEATURES, told, labels, 0.5)["0"]

    twice = errors(box, box + torch.tensor([0, 0, 0, 1.0]))
    assert twice.found.sum() == 1 and twice.false_heights.tolist() == [5]
    assert len(twice.heights) == number
    far = errors(box + torch.tensor([0.4, 0, 0.4, 0]))
    assert far.found.sum() == 0 and len(far.false_heights) == 1, "an intersection over union of 0.43"
    nothing = detector_errors(
        FEATURES, Detections(torch.zeros(1, 0, 4), torch.zeros(1, 0), torch.zeros(1, 0).long()), labels, 0
    )
    assert nothing["0"].recall == 0 and nothing["0"].f1 == 0


def test_errors_are_cut_by_height_and_joined() -> None:
    errors = DetectorErrors(torch.tensor([5.0, 10, 20]), torch.tensor([False, True, True]), torch.tensor([5.0, 30]))
    assert errors.recall == pytest.approx(2 / 3) and errors.at_least(10).recall == 1
    assert errors.at_least(10).precision == pytest.approx(2 / 3) and errors.below(10).recall == 0
    assert errors.at_least(10).below(30).f1 == 1 and errors.at_least(99).f1 == 0
    both = join_errors([{"a": errors}, {"a": errors}])["a"]
    assert len(both.heights) == 6 and len(both.false_heights) == 4 and both.recall == errors.recall
