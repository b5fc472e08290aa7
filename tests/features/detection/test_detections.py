"""Detections in batches: the best, without duplicates, and who rides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms2.features.detection.detections import Detections, find_riders, pad_detections


def drawn(seed: int, batch: int = 3, number: int = 12, categories: int = 3) -> Detections:
    """Boxes at random, some of them unused."""
    draw = torch.Generator().manual_seed(seed)
    low = 40 * torch.rand(batch, number, 2, generator=draw)
    size = 5 + 30 * torch.rand(batch, number, 2, generator=draw)
    kinds = torch.randint(-1, categories, (batch, number), generator=draw)
    scores = torch.rand(batch, number, generator=draw)
    return Detections(torch.cat([low, low + size], 2), scores.where(kinds >= 0, 0), kinds)


def iou(a: Tensor, b: Tensor) -> float:
    """Of two boxes, by definition."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = float(width * height) if width > 0 and height > 0 else 0.0
    areas = [float((c[2] - c[0]) * (c[3] - c[1])) for c in (a, b)]
    return both / (sum(areas) - both)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_duplicates_are_suppressed_as_one_by_one(seed: int, max_iou: float) -> None:
    found, groups = drawn(seed), torch.tensor([0, 1, 0])
    unique = found.without_duplicates(max_iou, groups)
    for image in range(3):
        kept: list[int] = []
        for i in found.scores[image].argsort(descending=True).tolist():
            kind = int(found.categories[image, i])
            rivals = [j for j in kept if groups[found.categories[image, j]] == groups[kind]]
            if kind >= 0 and all(iou(found.boxes[image, i], found.boxes[image, j]) <= max_iou for j in rivals):
                kept.append(i)
        assert (unique.categories[image] >= 0).nonzero().flatten().tolist() == sorted(kept)
        assert torch.equal(unique.categories[image][kept], found.categories[image][kept])
    assert (unique.scores[unique.categories < 0] == 0).all()


def test_the_best_are_the_highest_scores_with_their_boxes() -> None:
    found = drawn(1)
    best = found.best(4)
    assert torch.equal(best.scores, found.scores.sort(1, descending=True).values[:, :4])
    for image in range(3):
        places = found.scores[image].argsort(descending=True)[:4]
        assert torch.equal(best.boxes[image], found.boxes[image, places])
        assert torch.equal(best.categories[image], found.categories[image, places])
    assert found.best(99).boxes.shape == found.boxes.shape


def test_images_of_different_numbers_are_padded() -> None:
    parts = [(torch.ones(n, 4), torch.ones(n), torch.full((n,), n)) for n in (2, 0, 1)]
    found = pad_detections(parts)
    assert found.categories.tolist() == [[2, 2], [-1, -1], [1, -1]]
    assert torch.equal(found.scores, (found.categories >= 0).float())
    assert pad_detections([(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())] * 2).boxes.shape == (2, 0, 4)


PERSON, BICYCLE = [10.0, 10, 20, 50], [8.0, 30, 22, 60]
"""A rider and what is below: they share half of the person's box, 200 of 400 and of 420 square pixels."""


def riders(boxes: list[list[float]], people: list[int], mounts: list[int], least: float = 0.5) -> list[bool]:
    every = torch.tensor([boxes])
    is_person, is_mount = torch.zeros(2, 1, len(boxes), dtype=torch.bool)
    is_person[0, people], is_mount[0, mounts] = True, True
    return find_riders(every, is_person, is_mount, least).riding[0].tolist()


@pytest.mark.parametrize(("least", "riding"), [(0.49, True), (0.5, True), (0.51, False)])
def test_a_person_rides_on_what_their_box_overlaps_enough(least: float, riding: bool) -> None:
    assert riders([PERSON, BICYCLE], [0], [1], least) == [riding, False]


def test_a_bicycle_carries_one_rider() -> None:
    beside = [18.0, 20, 26, 60]
    assert riders([beside, PERSON, BICYCLE], [0, 1], [2], 0.1) == [False, True, False]
    assert riders([PERSON, BICYCLE, [9.0, 30, 21, 60]], [0], [1, 2]) == [True, False, False]


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_who_touches_nothing_rides_on_nothing(least: float) -> None:
    assert riders([PERSON, [100.0, 30, 120, 60]], [0], [1], least) == [False, False]
    assert riders([PERSON, BICYCLE], [], [1], least) == [False, False]
    assert riders([PERSON, BICYCLE], [0], [], least) == [False, False]
    assert riders([[10.0, 10, 10, 10], [10.0, 10, 10, 10]], [0], [1], least) == [False, False], "empty boxes"


def test_a_riders_box_covers_the_bicycle() -> None:
    boxes = torch.tensor([[PERSON, BICYCLE, [50.0, 10, 60, 50]]])
    people, mounts = torch.tensor([[True, False, True]]), torch.tensor([[False, True, False]])
    found = find_riders(boxes, people, mounts, 0.5).boxes
    assert found[0].tolist() == [[8, 10, 22, 60], BICYCLE, [50, 10, 60, 50]]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_riders_do_not_depend_on_the_order(seed: int) -> None:
    found = drawn(seed)
    people, mounts = found.categories == 0, found.categories == 1
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    direct = find_riders(found.boxes, people, mounts, 0.3)
    mixed = find_riders(found.boxes[:, order], people[:, order], mounts[:, order], 0.3)
    assert torch.equal(mixed.riding, direct.riding[:, order]) and torch.equal(mixed.boxes, direct.boxes[:, order])
    assert direct.riding.sum(1).le(mounts.sum(1)).all() and not (direct.riding & ~people).any()
