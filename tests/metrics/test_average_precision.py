"""Average precision against hand-computed values, pycocotools, and KITTI's own way; what makes no difference to it."""

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import binom
from torch import Tensor

from ms2.core.errors import UserError
from ms2.metrics.average_precision import (
    DIFFICULTIES,
    LEVELS,
    MIN_KITTI_OBJECTS,
    Fields,
    MatchedDetections,
    average_precision,
    box_iou,
    kitti_ap,
    match_detections,
    mean_ap,
    occlusion_level,
)

BOX = [10.0, 10.0, 50.0, 60.0]
FAR = [100.0, 10.0, 140.0, 60.0]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def seen(*rows: Sequence[float], scores: Sequence[float] | None = None, labels: Sequence[int] | None = None) -> Fields:
    """Detections, the surest first."""
    n = len(rows)
    return {
        "boxes": boxes(rows),
        "scores": torch.tensor(scores or [1 - i / 100 for i in range(n)]),
        "labels": torch.tensor(labels or [1] * n, dtype=torch.long),
    }


def truth(*rows: Sequence[float], labels: Sequence[int] | None = None, **more: Any) -> Fields:
    """A target whose objects are easy, as far as nothing else is said."""
    n = len(rows)
    found = boxes(rows)
    return {
        "boxes": found,
        "labels": torch.tensor(labels or [1] * n, dtype=torch.long),
        "height": found[:, 3] - found[:, 1],
        "occlusion": torch.zeros(n, dtype=torch.long),
        "truncation": torch.zeros(n),
        "scale": torch.tensor(1.0),
        **more,
    }


def regions(*rows: Sequence[float], label: int = 0) -> dict[str, Tensor]:
    return {"regions": boxes(rows), "region_labels": torch.full((len(rows),), label)}


def scene(generator: torch.Generator, classes: int = 3, crowds: bool = False) -> tuple[Fields, Fields]:
    """Detections and target of an image full of boxes that overlap."""

    def random(n: int) -> Tensor:
        corner = torch.rand(n, 2, generator=generator) * 60
        return torch.cat([corner, corner + 8 + torch.rand(n, 2, generator=generator) * 30], 1)

    def label(n: int) -> Tensor:
        return torch.randint(1, classes + 1, (n,), generator=generator)

    n, false = (int(torch.randint(0, 9, (), generator=generator)) for _ in range(2))
    real = random(n)
    near = real + torch.randn(n, 4, generator=generator) * 2
    found = torch.cat([near, near + 1, random(false)])
    labels = label(n)
    guesses = torch.cat([labels, labels, label(false)])
    scores = torch.rand(len(found), generator=generator)
    target: dict[str, Tensor] = {"boxes": real, "labels": labels}
    if crowds:
        target |= {"regions": random(2), "region_labels": label(2)}
    return {"boxes": found, "scores": scores, "labels": guesses}, target


def scenes(seed: int, n: int = 12, **more: Any) -> tuple[list[Fields], list[Fields]]:
    generator = rng(seed)
    pairs = [scene(generator, **more) for _ in range(n)]
    return [found for found, _ in pairs], [target for _, target in pairs]


# --- average precision ---

HIT_MISS_HIT = MatchedDetections(
    torch.tensor([0.9, 0.8, 0.7]).double(), torch.tensor([True, False, True]), torch.zeros(3).long(), torch.tensor([3])
)
"""Precision 1, 1/2 and 2/3 at recalls 1/3, 1/3 and 2/3, so that 2/3 is the best precision beyond a recall of 1/3."""


@pytest.mark.parametrize(
    ("interpolation", "ap"),
    [
        ("area", (1 + 2 / 3) / 3),
        ("11", (4 + 3 * 2 / 3) / 11),
        ("40", (13 + 13 * 2 / 3) / 40),
        ("101", (34 + 33 * 2 / 3) / 101),
    ],
)
def test_hand_computed(interpolation: Any, ap: float) -> None:
    assert average_precision(HIT_MISS_HIT, interpolation) == pytest.approx(ap, abs=1e-12)


@pytest.mark.parametrize("interpolation", LEVELS)
def test_perfect_detections_give_one_and_none_give_zero(interpolation: Any) -> None:
    targets = scenes(0)[1]
    perfect = [{**target, "scores": torch.rand(len(target["boxes"]), generator=rng())} for target in targets]
    nothing = [seen() for _ in targets]
    for found, ap in ((perfect, 1), (nothing, 0)):
        result = mean_ap(found, targets, "abc", generator=rng(), interpolation=interpolation, resamples=5)
        assert result == dict.fromkeys(("mean", *"abc"), result["mean"])
        assert (result["a"].low, result["a"].value, result["a"].high) == (ap, ap, ap)


@pytest.mark.parametrize("interpolation", LEVELS)
def test_equal_scores_come_together(interpolation: Any) -> None:
    hits = [torch.tensor(row) for row in ([True, False], [False, True])]
    aps = {
        average_precision(
            MatchedDetections(torch.ones(2).double(), hit, torch.zeros(2).long(), torch.tensor([1])), interpolation
        )
        for hit in hits
    }
    assert aps == {0.5}


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(seed: int, crowds: bool) -> None:
    found, targets = scenes(seed, crowds=crowds)
    ours = mean_ap(found, targets, "abc", generator=rng(), resamples=1)
    theirs = coco_ap50(found, targets, 3)
    assert [ours[name].value for name in "abc"] == pytest.approx(theirs, abs=1e-9)
    assert ours["mean"].value == pytest.approx(np.mean(theirs), abs=1e-9)
    assert 0.1 < ours["mean"].value < 0.9  # so that there is something to be wrong about


def coco_ap50(found: Sequence[Fields], targets: Sequence[Fields], classes: int) -> list[float]:
    def annotation(box: Tensor, label: Tensor, image: int, **more: Any) -> dict[str, Any]:
        x0, y0, x1, y1 = box.double().tolist()
        size = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        return {"image_id": image, "category_id": int(label), **size, **more}

    real = [
        annotation(box, label, i, iscrowd=crowd)
        for i, target in enumerate(targets, 1)
        for crowd, (where, what) in enumerate((("boxes", "labels"), ("regions", "region_labels")))
        if where in target
        for box, label in zip(target[where], target[what], strict=True)
    ]
    guesses = [
        annotation(box, label, i, score=float(score))
        for i, one in enumerate(found, 1)
        for box, label, score in zip(one["boxes"], one["labels"], one["scores"], strict=True)
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(1, len(targets) + 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, classes + 1)],
        "annotations": [{"id": i, **one} for i, one in enumerate(real, 1)],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(guesses), "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.evaluate()
        judge.accumulate()
    curves = judge.eval["precision"][0, :, :, 0, -1]  # recall, class; objects of any size; 100 detections
    return [float(curve.mean()) for curve in curves.T]


# --- what makes no difference, and what makes one in which direction ---


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), interpolation=st.sampled_from(sorted(LEVELS)))
def test_order_makes_no_difference(seed: int, interpolation: Any) -> None:
    found, targets = scenes(seed, n=4, crowds=True)
    before = {label: average_precision(match_detections(found, targets, label), interpolation) for label in (1, 2)}
    images = torch.randperm(4, generator=rng(seed)).tolist()
    turned = []
    for i in images:
        order = torch.randperm(len(found[i]["scores"]), generator=rng(seed))
        turned.append({name: values[order] for name, values in found[i].items()})
    after = {
        label: average_precision(match_detections(turned, [targets[i] for i in images], label), interpolation)
        for label in (1, 2)
    }
    assert after == pytest.approx(before, nan_ok=True)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), interpolation=st.sampled_from(sorted(LEVELS)), score=st.floats(0, 1))
def test_a_false_alarm_never_helps_and_a_hit_never_harms(seed: int, interpolation: Any, score: float) -> None:
    found, targets = scenes(seed, n=3)
    targets.append(truth(BOX))
    nowhere, hit = seen([200, 200, 220, 220], scores=[score]), seen(BOX, scores=[score])
    false, nothing, true = (
        average_precision(match_detections([*found, last], targets, 1), interpolation)
        for last in (nowhere, seen(), hit)
    )
    assert false <= nothing + 1e-12 and nothing <= true + 1e-12


def test_scores_matter_only_by_their_order() -> None:
    found, targets = scenes(1)
    squared = [{**one, "scores": one["scores"] ** 2} for one in found]
    assert average_precision(match_detections(found, targets, 1)) == average_precision(
        match_detections(squared, targets, 1)
    )


# --- matching ---


@pytest.mark.parametrize(
    ("box", "other", "iou", "share"),
    [
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 4),
        ([0, 0, 2, 2], [0, 0, 4, 4], 1 / 4, 1),
        ([0, 0, 4, 4], [0, 0, 2, 2], 1 / 4, 1 / 4),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0, 0),
        ([1, 1, 1, 1], [0, 0, 2, 2], 0, 0),
    ],
)
def test_overlaps(box: list[float], other: list[float], iou: float, share: float) -> None:
    assert float(box_iou(boxes([box]), boxes([other]))) == pytest.approx(iou)
    assert float(box_iou(boxes([box]), boxes([other]), normalise_by_first=True)) == pytest.approx(share)


def hits(found: Fields, target: Fields, iou: float = 0.5) -> list[bool]:
    """Of the detections that count."""
    return match_detections([found], [target], 1, iou).hits.tolist()


def test_an_object_is_found_once_by_the_surest() -> None:
    outcome = match_detections([seen(BOX, BOX, scores=[0.3, 0.8])], [truth(BOX)], 1)
    assert outcome.hits.tolist() == [True, False] and outcome.scores.tolist() == pytest.approx([0.8, 0.3])
    assert outcome.positives.tolist() == [1]


def test_the_least_overlap_is_enough() -> None:
    half = [10.0, 10.0, 30.0, 60.0]
    assert hits(seen(half), truth(BOX), 0.5) == [True]
    assert hits(seen(half), truth(BOX), 0.51) == [False]


def test_other_classes_and_images_are_no_match() -> None:
    assert hits(seen(BOX), truth(BOX, labels=[2])) == [False]
    outcome = match_detections([seen(BOX), seen()], [truth(), truth(BOX)], 1)
    assert outcome.hits.tolist() == [False] and outcome.positives.tolist() == [0, 1]


def test_ignored_objects_are_neither_found_nor_missed() -> None:
    target = truth(BOX, FAR, ignore=torch.tensor([True, False]))
    assert hits(seen(BOX, FAR), target) == [True]
    assert match_detections([seen()], [target], 1).positives.tolist() == [1]
    assert hits(seen(BOX, BOX), target) == [False]  # the second one of an ignored object is a false alarm, as in COCO


def test_counted_objects_come_before_ignored_ones() -> None:
    shifted = [12.0, 10.0, 52.0, 60.0]  # a little further off than the ignored one
    target = truth(BOX, shifted, ignore=torch.tensor([True, False]))
    assert hits(seen(BOX), target) == [True]


def test_regions_swallow_any_number_of_detections_that_lie_in_them() -> None:
    inside, half, outside = [20, 20, 30, 30], [0, 20, 20, 30], [0, 20, 18, 30]
    assert hits(seen(inside, inside, half, outside), truth(**regions(BOX))) == [False]
    assert hits(seen(BOX), truth(BOX, **regions(BOX))) == [True]  # an object in it is found all the same
    assert hits(seen(inside), truth(**regions(BOX, label=1))) == []
    assert hits(seen(inside), truth(**regions(BOX, label=2))) == [False]


def test_visible_shares_become_levels_of_occlusion() -> None:
    assert occlusion_level(torch.tensor([1.0, 0.8, 0.79, 0.5, 0.49, 0.0])).tolist() == [0, 0, 1, 1, 2, 2]


# --- KITTI ---


def kitti(found: Sequence[Fields], targets: Sequence[Fields], **more: Any) -> list[float]:
    """AP of easy, moderate and hard objects."""
    return [ap.value for ap in kitti_ap(found, targets, 1, generator=rng(), resamples=1, **more).values()]


@pytest.mark.parametrize(
    ("height", "occlusion", "truncation", "counted"),
    [
        (50.0, 0, 0.0, "easy moderate hard"),
        (40.0, 0, 0.0, "moderate hard"),
        (25.1, 0, 0.0, "moderate hard"),
        (25.0, 0, 0.0, ""),
        (50.0, 1, 0.0, "moderate hard"),
        (50.0, 2, 0.0, "hard"),
        (50.0, 3, 0.0, ""),
        (50.0, 0, 0.15, "easy moderate hard"),
        (50.0, 0, 0.2, "moderate hard"),
        (50.0, 0, 0.4, "hard"),
        (50.0, 0, 0.6, ""),
    ],
)
def test_what_is_easy_and_hard(height: float, occlusion: int, truncation: float, counted: str) -> None:
    target = truth(
        BOX,
        height=torch.tensor([height]),
        occlusion=torch.tensor([occlusion]),
        truncation=torch.tensor([truncation]),
    )
    result = kitti_ap([seen(BOX)], [target], 1, generator=rng(), resamples=1)
    assert list(result) == list(DIFFICULTIES)
    assert [name for name, ap in result.items() if not math.isnan(ap.value)] == counted.split()
    # a harder object is not missed, and to find it is no false alarm, where an easy one is found too
    easy = truth(FAR)
    for found in (seen(), seen(BOX)):
        result = kitti_ap([found, seen(FAR, scores=[0.5])], [target, easy], 1, generator=rng(), resamples=1)
        missed = {name for name, ap in result.items() if ap.value < 1}
        assert missed == (set() if len(found["boxes"]) else set(counted.split()))


def test_detections_lower_than_the_least_height_are_left_out() -> None:
    low = [200.0, 10.0, 260.0, 36.0]  # 26 pixels
    assert kitti([seen(low, BOX)], [truth(BOX)]) == [1, 0.5, 0.5]


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_heights_are_those_of_the_original_image(scale: float) -> None:
    found, targets = streets(rng(3), 10)
    before = kitti(found, targets)
    assert len(set(before)) > 1 and 0 < min(before) < 1
    found = [{**one, "boxes": one["boxes"] * scale} for one in found]
    targets = [
        {**t, "boxes": t["boxes"] * scale, "regions": t["regions"] * scale, "scale": torch.tensor(scale)}
        for t in targets
    ]
    assert kitti(found, targets) == pytest.approx(before)
    assert kitti(found, [{**t, "scale": torch.tensor(1.0)} for t in targets]) != pytest.approx(before)


def test_neighbours_and_dont_care_regions() -> None:
    van = truth(BOX, FAR, ignore=torch.tensor([True, False]), **regions([200, 0, 300, 200]))
    somewhere = [220.0, 20.0, 260.0, 80.0]
    assert kitti([seen(BOX, somewhere, FAR)], [van]) == [1, 1, 1]
    assert kitti([seen(FAR)], [van]) == [1, 1, 1]


def test_the_least_overlap_can_be_kittis() -> None:
    near = [10.0, 10.0, 34.0, 60.0]  # 0.6
    assert kitti([seen(near)], [truth(BOX)]) == [1, 1, 1]
    assert kitti([seen(near)], [truth(BOX)], iou=0.7) == [0, 0, 0]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_agrees_with_kittis_own_way(difficulty: str) -> None:
    found, targets = streets(rng(5))
    ours = kitti_ap(found, targets, 1, generator=rng(), resamples=1)[difficulty].value
    theirs = devkit_ap(found, targets, *DIFFICULTIES[difficulty])
    assert 0.3 < theirs < 0.95
    assert ours == pytest.approx(theirs, abs=0.015)


def streets(generator: torch.Generator, n: int = 200) -> tuple[list[Fields], list[Fields]]:
    """Objects of all kinds side by side, with detections that waver around them, and false alarms."""
    found, targets = [], []
    for _ in range(n):
        k = 12
        left = torch.arange(k) * 100.0
        height, width = (20 + 60 * torch.rand(k, generator=generator) for _ in range(2))
        real = torch.stack([left, torch.zeros(k), left + width, height], 1)
        near = real + torch.randn(k, 4, generator=generator) * 7
        kinds = torch.rand(k, generator=generator)  # car, van, don't care, nothing
        van, care, nothing = (kinds > 0.6) & (kinds < 0.7), (kinds > 0.7) & (kinds < 0.8), kinds > 0.8
        target = truth(
            *real[~care & ~nothing].tolist(),
            ignore=van[~care & ~nothing],
            occlusion=torch.randint(0, 4, (k,), generator=generator)[~care & ~nothing],
            truncation=torch.rand(k, generator=generator)[~care & ~nothing] ** 3,
            **regions(*real[care].tolist()),
        )
        certain = torch.rand(k, generator=generator) - 0.5 * nothing + 1
        found.append({"boxes": near, "scores": certain, "labels": torch.ones(k).long()})
        targets.append(target)
    return found, targets


def devkit_ap(found: Sequence[Fields], targets: Sequence[Fields], height: float, occlusion: int, cut: float) -> float:
    """AP by KITTI's rules: objects choose detections, the surest ones to set scores, then the closest at each score."""

    def choices(threshold: float | None) -> tuple[list[float], int, int]:
        """Scores of what was found, hits, and false alarms among detections from a score on."""
        scores, hits, alarms = [], 0, 0
        for score, low, table, inside, ignored in images:
            free = score >= (-1 if threshold is None else threshold)
            for j in range(len(ignored)):
                candidates = free & (table[:, j] > 0.5)
                if not candidates.any():
                    continue
                liked = score if threshold is None else table[:, j] + ~low  # those that are high enough first
                best = np.where(candidates, liked, -1).argmax()
                free[best] = False
                if not ignored[j] and not low[best]:
                    scores.append(score[best])
                    hits += 1
            alarms += (free & ~low & ~inside).sum()
        return scores, hits, alarms

    images = []
    for one, target in zip(found, targets, strict=True):
        low = one["boxes"][:, 3] - one["boxes"][:, 1] < height
        inside = (box_iou(one["boxes"], target["regions"], normalise_by_first=True) > 0.5).any(1)
        hard = (target["height"] <= height) | (target["occlusion"] > occlusion) | (target["truncation"] > cut)
        row = (one["scores"], low, box_iou(one["boxes"], target["boxes"]), inside, hard | target["ignore"])
        images.append([values.numpy() for values in row])

    positives = sum((~ignored).sum() for *_, ignored in images)
    assert positives > 100
    return devkit_mean([choices(score)[1:] for score in devkit_scores(choices(None)[0], positives)])


def devkit_scores(hits: Sequence[float], positives: int) -> list[float]:
    """Scores of the hits whose recalls are nearest to 0/40 ... 40/40, the best first."""
    scores, chosen, recall = sorted(hits, reverse=True), [], 0.0
    for i, score in enumerate(scores, 1):
        last = i == len(scores)
        if not last and (i + 1) / positives - recall < recall - i / positives:
            continue
        chosen.append(score)
        recall += 1 / 40
    return chosen[:41]


def devkit_mean(found: Sequence[tuple[int, int]]) -> float:
    """AP of the hits and false alarms at each of the chosen scores."""
    precision = np.zeros(41)
    for i, (hit, alarm) in enumerate(found):
        precision[i] = hit / (hit + alarm)
    return float(np.maximum.accumulate(precision[::-1])[::-1][1:].mean())


def both_ways(n: int, found: int, alarms: int, draw: torch.Generator) -> tuple[float, float]:
    """AP with n objects, some of them found, and false alarms, all scored at random; and KITTI's own."""
    hits = torch.arange(found + alarms) < found
    scores = torch.rand(len(hits), generator=draw).double() + 0.3 * hits
    ours = MatchedDetections(scores, hits, torch.zeros(len(hits)).long(), torch.tensor([n]))
    chosen = devkit_scores(scores[hits].tolist(), n)
    theirs = [(int(hits[scores >= score].sum()), int((~hits)[scores >= score].sum())) for score in chosen]
    return average_precision(ours, "40"), devkit_mean(theirs)


@pytest.mark.parametrize("n", [1, 10, 37, MIN_KITTI_OBJECTS - 1])
def test_on_few_objects_kittis_own_way_gives_less(n: int) -> None:
    draw = rng(n)
    assert both_ways(n, n, 0, draw) == pytest.approx((1, (n - 1) / 40))
    for found in range(1, n + 1):
        ours, theirs = both_ways(n, found, 10, draw)
        assert -1e-9 <= ours - theirs <= (MIN_KITTI_OBJECTS - n) / 40 + 1e-9


@pytest.mark.parametrize("n", [MIN_KITTI_OBJECTS, 46, 60, 150])
def test_on_more_objects_it_differs_by_at_most_one_recall(n: int) -> None:
    draw = rng(n)
    assert both_ways(n, n, 0, draw) == pytest.approx((1, 1))
    for found in range(1, n + 1, 3):
        ours, theirs = both_ways(n, found, 20, draw)
        assert abs(ours - theirs) <= 0.025 + 1e-9


def test_the_objects_that_count_are_numbered() -> None:
    hard = {"occlusion": torch.tensor([0, 1, 2, 0]), "ignore": torch.tensor([False, False, False, True])}
    targets = [truth(BOX, FAR, BOX, FAR, **hard), truth(BOX, FAR, labels=[1, 2])]
    found = kitti_ap([seen(), seen(BOX)], targets, 1, generator=rng(), resamples=1)
    assert {name: ap.num_objects for name, ap in found.items()} == {"easy": 2, "moderate": 3, "hard": 4}


# --- intervals ---


@pytest.mark.parametrize("interpolation", LEVELS)
def test_resampling_images_is_to_repeat_them(interpolation: Any) -> None:
    """A resample's AP is that of the list of its images."""
    found, targets = scenes(2, n=5)
    draws = rng(7)
    ap = mean_ap(found, targets, "ab", generator=rng(7), interpolation=interpolation, resamples=1)
    places = torch.randint(5, (1, 5), generator=draws)[0].tolist()
    outcome = match_detections([found[i] for i in places], [targets[i] for i in places], 1)
    again = average_precision(outcome, interpolation)
    assert again != ap["a"].value
    ends = sorted([again, ap["a"].value])
    assert [ap["a"].low, ap["a"].high] == pytest.approx(ends)


def test_intervals_are_those_of_a_share() -> None:
    """With one object per image and no false alarms, AP is the share found, whose resamples are binomial."""
    n, share = 200, 0.3
    found = [seen(BOX) if i < share * n else seen() for i in range(n)]
    ap = mean_ap(found, [truth(BOX)] * n, "a", generator=rng(), interpolation="area", resamples=4000)["a"]
    assert ap.value == pytest.approx(share)
    assert [ap.low, ap.high] == pytest.approx([binom.ppf(q, n, share) / n for q in (0.025, 0.975)], abs=0.006)


def test_intervals_hold_the_value_and_follow_the_generator() -> None:
    found, targets = scenes(4)
    first, second, third = (mean_ap(found, targets, "abc", generator=rng(seed), resamples=50) for seed in (0, 0, 1))
    assert first == second != third
    assert all(ap.low <= ap.value <= ap.high and ap.low < ap.high for ap in first.values())
    narrow = mean_ap(found, targets, "abc", generator=rng(0), resamples=50, level=0.5)["mean"]
    assert first["mean"].low < narrow.low < narrow.high < first["mean"].high


def test_memory_is_bounded_without_changing_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    found, targets = scenes(4)
    whole = mean_ap(found, targets, "abc", generator=rng(), resamples=20)
    monkeypatch.setattr("ms2.metrics.bootstrap.MAX_DRAWS_PER_CHUNK", 1)  # one resample at a time
    parts = mean_ap(found, targets, "abc", generator=rng(), resamples=20)
    assert {k: (v.low, v.high) for k, v in parts.items()} == {
        k: pytest.approx((v.low, v.high)) for k, v in whole.items()
    }


def test_a_class_without_objects_is_left_out_of_the_mean() -> None:
    result = mean_ap([seen(BOX)], [truth(BOX)], "ab", generator=rng(), resamples=3)
    assert math.isnan(result["b"].value) and math.isnan(result["b"].low)
    assert result["mean"].value == result["a"].value == 1


# --- errors ---


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"iou": 0.0}, "iou is 0.0: give the minimum IoU of a detection and its object, above 0 and at most 1"),
        ({"interpolation": "41"}, "there is no interpolation '41'. Available: 101, 11, 40, area."),
        (
            {"resamples": 0},
            "resamples=0 and level=0.95 were given, but resamples must be at least 1 and level between 0 and 1: "
            "try resamples=500, level=0.95.",
        ),
        ({"targets": []}, "there are detections of 1 images, but targets of 0: pass both of each image"),
        ({"targets": [], "found": []}, "there are no images to measure on"),
        ({"categories": []}, "there are no classes to measure: name at least one"),
        (
            {"categories": ["mean"]},
            "a class is called 'mean', which is what the mean over classes is called: rename it",
        ),
    ],
)
def test_errors(more: dict[str, Any], text: str) -> None:
    all_of_them = {"found": [seen(BOX)], "targets": [truth(BOX)], "categories": ["a"], "resamples": 1} | more
    what = [all_of_them.pop(name) for name in ("found", "targets", "categories")]
    with pytest.raises(UserError) as error:
        mean_ap(*what, generator=rng(), **all_of_them)
    assert str(error.value) == text


def test_plain_targets_have_no_difficulty() -> None:
    with pytest.raises(UserError, match="targets without height, occlusion, scale, truncation have no easy and hard"):
        kitti([seen(BOX)], [{"boxes": boxes([BOX]), "labels": torch.ones(1).long()}])
