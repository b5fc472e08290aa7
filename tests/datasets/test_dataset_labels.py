"""Labels against brute force and pycocotools on random instance maps; a renderer that contradicts itself is refused."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as rle

from ms2.datasets.labels import LabelArrays, LabelError, LabelFilter, image_labels
from ms2.datasets.masks import decode_mask, instance_masks
from ms2.datasets.records import ObjectLabel

# pycocotools 2.0.11 decodes masks by NumPy's older protocol
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
CLASSES = ("car", "house", "tree")
ALL = LabelFilter(CLASSES, 0.0, 1)
OBJECTS = 4

sides = st.integers(1, 9)
maps = st.tuples(sides, sides).flatmap(lambda size: arrays(np.int64, size, elements=st.integers(-1, OBJECTS - 1)))
"""Instance maps of up to four objects."""


def around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box of a mask, from edge to edge, by looking at every pixel; zeros where it is empty."""
    pixels = [(x, y) for y, row in enumerate(mask.tolist()) for x, seen in enumerate(row) if seen]
    if not pixels:
        return 0, 0, 0, 0
    xs, ys = zip(*pixels, strict=True)
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def truth(seen: np.ndarray, solid: bool = False, **changed: Any) -> LabelArrays:
    """What an honest renderer says of one image; some of it changed.

    Args:
        seen: Index of the object at every pixel.
        solid: Whether to say what is known of 3D scenes too.
        changed: Fields with the rows of all objects.
    """
    masks = [seen == i for i in range(OBJECTS)]
    boxes = np.array([around(mask) for mask in masks], dtype=np.float32)
    honest: dict[str, Any] = {
        "classes": np.arange(OBJECTS) % len(CLASSES),
        "boxes": boxes,
        "visible_boxes": boxes,
        "instances": seen,
        "visibility": np.array([mask.any() for mask in masks], dtype=np.float32),
        "truncation": np.zeros(OBJECTS, dtype=np.float32) if solid else None,
        "boxes3d": np.ones((OBJECTS, 7), dtype=np.float32) if solid else None,
    }
    honest |= {key: np.asarray(value, dtype=honest[key].dtype) for key, value in changed.items()}
    return LabelArrays(**{key: None if value is None else value[None] for key, value in honest.items()})


@given(maps)
def test_masks_are_those_of_pycocotools(instances: np.ndarray) -> None:
    found = instance_masks(instances)
    assert set(found) == set(instances.flatten().tolist()) - {-1}
    for i, (segmentation, area, box) in found.items():
        mask = instances == i
        theirs = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert segmentation == {"size": list(instances.shape), "counts": theirs["counts"].decode()}
        assert np.array_equal(decode_mask(segmentation, instances.shape), mask)
        assert area == mask.sum() and box == around(mask)


def test_a_mask_of_the_whole_image_and_one_of_all_but_a_column() -> None:
    instances = np.full((300, 500), 2)
    assert instance_masks(instances)[2][1:] == (150_000, (0, 0, 500, 300))
    instances[:, 499] = -1
    assert instance_masks(instances)[2][1:] == (149_700, (0, 0, 499, 300))
    assert decode_mask(instance_masks(instances)[2].segmentation, (300, 500)).sum() == 149_700
    assert instance_masks(np.full((3, 4), -1)) == {}


def test_more_objects_than_a_byte_counts() -> None:
    """pycocotools 2.0.11 computes areas of at most 255 masks at once."""
    found = instance_masks(np.arange(300).reshape(15, 20))
    assert len(found) == 300
    assert all((mask.area, mask.box) == (1, (i % 20, i // 20, i % 20 + 1, i // 20 + 1)) for i, mask in found.items())


shares = st.lists(st.floats(0.0078125, 1, width=32), min_size=OBJECTS, max_size=OBJECTS)
kinds = st.lists(st.integers(-1, len(CLASSES) - 1), min_size=OBJECTS, max_size=OBJECTS)
filters = st.builds(
    LabelFilter,
    st.sets(st.sampled_from(CLASSES)).map(lambda chosen: tuple(name for name in CLASSES if name in chosen)),
    st.floats(0, 1),
    st.integers(1, 30),
)


def labelled(*args: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Labels and hidden objects as JSON data, which is read back to the same labels."""
    found = image_labels(*args)
    for label in (*found[0], *found[1]):
        assert ObjectLabel.from_json(json.loads(json.dumps(label.to_json(), allow_nan=False))) == label
    return [label.to_json() for label in found[0]], [label.to_json() for label in found[1]]


@given(maps, kinds, shares, filters)
def test_what_is_labelled_and_what_is_hidden(
    instances: np.ndarray, kinds: list[int], shares: list[float], label_filter: LabelFilter
) -> None:
    """By the label_filter, of the categories alone; a hidden object has a box if something of it shows."""
    instances = np.where(np.array([*kinds, -1])[instances] < 0, -1, instances)  # nothing shows where nothing is
    seen = [bool((instances == i).any()) for i in range(OBJECTS)]
    visibility = np.where(seen, shares, 0).astype(np.float32)
    labels, hidden = labelled(truth(instances, classes=kinds, visibility=visibility), 0, CLASSES, label_filter)
    of_filter = [i for i, kind in enumerate(kinds) if kind >= 0 and CLASSES[kind] in label_filter.categories]
    areas = [(instances == i).sum() for i in range(OBJECTS)]
    expected = [
        i
        for i in of_filter
        if areas[i] >= label_filter.min_pixels and float(visibility[i]) >= label_filter.min_visibility
    ]
    assert [found["object"] for found in labels] == [i for i in expected if areas[i]]
    assert [found["object"] for found in hidden] == [i for i in of_filter if i not in expected or not areas[i]]
    height, width = instances.shape
    for found in (*labels, *hidden):
        i = found["object"]
        x0, y0, x1, y1 = around(instances == i)
        assert found["category"] == CLASSES[kinds[i]]
        assert found["visibility"] == pytest.approx(float(visibility[i]), abs=5e-4)
        assert ("bbox" in found) == seen[i]
        if seen[i]:
            assert found["bbox"] == [x0, y0, x1 - x0, y1 - y0] and found["area"] == areas[i] > 0
    for found in labels:
        assert np.array_equal(decode_mask(found["segmentation"], instances.shape), instances == found["object"])
        x, y, w, h = found["amodal_bbox"]
        assert 0 <= x < x + w <= width and 0 <= y < y + h <= height


def test_the_rule_s_bounds_are_inclusive() -> None:
    instances = np.full((4, 6), -1)
    instances[0, :4], instances[1, :3], instances[2, :4] = 0, 1, 2
    visibility = [0.25, 0.9, 0.249, 0]
    labels, hidden = labelled(truth(instances, visibility=visibility), 0, CLASSES, LabelFilter(CLASSES, 0.25, 4))
    assert [found["object"] for found in labels] == [0]
    assert [found["object"] for found in hidden] == [1, 2, 3]
    assert [found.get("area") for found in hidden] == [3, 4, None]


def test_the_rule_in_words() -> None:
    assert "at least 25% of its pixels, and at least 8 of them" in str(LabelFilter(CLASSES, 0.25, 8))


edges = st.floats(-2000, 2000, width=32)


@given(arrays(np.float32, 4, elements=edges), sides, sides)
def test_a_whole_object_s_box_is_cut_by_the_image(corners: np.ndarray, height: int, width: int) -> None:
    """However its edges are rounded."""
    x0, x1 = sorted(corners[:2].tolist())
    y0, y1 = sorted(corners[2:].tolist())
    cut = [min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)]
    inside = [math.ceil(cut[0]), math.ceil(cut[1]), math.floor(cut[2]), math.floor(cut[3])]  # whole pixels of it
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return
    instances = np.full((height, width), -1)
    instances[inside[1] : inside[3], inside[0] : inside[2]] = 0
    whole = [[x0, y0, x1, y1], *[[0.0] * 4] * (OBJECTS - 1)]
    [found], _ = labelled(truth(instances, boxes=whole), 0, CLASSES, ALL)
    x, y, w, h = found["amodal_bbox"]
    assert [x, y, x + w, y + h] == pytest.approx(cut, abs=1e-3)
    assert x >= 0 and y >= 0 and x + w <= width + 1e-9 and y + h <= height + 1e-9
    assert x <= inside[0] and y <= inside[1] and x + w >= inside[2] - 1e-9 and y + h >= inside[3] - 1e-9


def test_a_whole_object_s_box_holds_what_is_visible_to_the_pixel() -> None:
    """Outlines need not lie on the grid of pixels; pixels reach out of them by less than one."""
    instances = np.full((8, 8), -1)
    instances[2:5, 3:6] = 0
    whole = [[3.25, 2.0, 5.5, 7.125], *[[0.0] * 4] * (OBJECTS - 1)]
    [found], _ = labelled(truth(instances, boxes=whole), 0, CLASSES, ALL)
    assert found["bbox"] == [3, 2, 3, 3]
    assert found["amodal_bbox"] == [3, 2, 3, 5.125]


@given(maps)
def test_what_3d_scenes_add(instances: np.ndarray) -> None:
    labels, hidden = labelled(truth(instances, solid=True), 0, CLASSES, ALL)
    assert len(labels) + len(hidden) == OBJECTS
    for found in (*labels, *hidden):
        assert found["box3d"] == [1] * 7 and found["truncation"] == 0
    flat, _ = labelled(truth(instances), 0, CLASSES, ALL)
    assert flat == [{k: v for k, v in one.items() if k not in ("box3d", "truncation")} for one in labels]


def test_one_image_of_a_batch() -> None:
    first, second = np.full((2, 2), 0), np.full((2, 2), 1)
    pair = (truth(first), truth(second))
    both = LabelArrays(*(None if a is None else np.concatenate([a, b]) for a, b in zip(*pair, strict=True)))
    for i, alone in enumerate(pair):
        assert image_labels(both, i, CLASSES, ALL) == image_labels(alone, 0, CLASSES, ALL)


INSTANCES = np.array([[0, 0, -1, -1], [0, 0, 1, 1], [-1, -1, 1, 1]])
BOXES = [[0, 0, 2, 2], [2, 1, 4, 3], [0, 0, 0, 0], [0, 0, 0, 0]]
NAN, INF = math.nan, math.inf


def with_row(rows: Sequence[Any], place: int, row: Any) -> list[Any]:
    """Rows, one of them another."""
    return [row if i == place else old for i, old in enumerate(rows)]


CONTRADICTIONS = {
    "a visible box that is too wide": {"visible_boxes": with_row(BOXES, 1, [1, 1, 4, 3])},
    "a visible box beside the mask": {"visible_boxes": with_row(BOXES, 1, [1, 1, 3, 3])},
    "a visible box that is none": {"visible_boxes": with_row(BOXES, 1, [0, 0, 0, 0])},
    "a visible box without a pixel": {"visible_boxes": with_row(BOXES, 2, [0, 0, 1, 1])},
    "a visible box of no number": {"visible_boxes": with_row(BOXES, 1, [2, 1, NAN, 3])},
    "pixels of which nothing is visible": {"visibility": [1, 0, 0, 0]},
    "more than all visible": {"visibility": [1, 1.01, 0, 0]},
    "less than nothing visible": {"visibility": [1, 1, -0.1, 0]},
    "no number visible": {"visibility": [1, NAN, 0, 0]},
    "a whole box elsewhere": {"boxes": with_row(BOXES, 1, [0, 0, 1, 1])},
    "a whole box that is smaller": {"boxes": with_row(BOXES, 1, [3.25, 1, 4, 3])},
    "a whole box left unset": {"boxes": with_row(BOXES, 1, [0, 0, 0, 0])},
    "a whole box of no numbers": {"boxes": with_row(BOXES, 1, [NAN, NAN, NAN, NAN])},
    "a whole box with an edge that is no number": {"boxes": with_row(BOXES, 1, [2, 1, 4, NAN])},
    "pixels of a place without an object": {"classes": [0, -1, 2, 0]},
    "pixels of an object beyond the last": {
        "instances": np.where(INSTANCES == 1, 7, INSTANCES),
        "visible_boxes": with_row(BOXES, 1, [0, 0, 0, 0]),
        "visibility": [1, 0, 0, 0],
    },
    "a truncation of more than all": {"truncation": [0, 1.5, 0, 0]},
    "a truncation that is no number": {"truncation": [0, NAN, 0, 0]},
    "an endless 3D box": {"boxes3d": with_row([[1] * 7] * 4, 1, [1, 1, INF, 1, 1, 1, 1])},
    "a 3D box of no number": {"boxes3d": with_row([[1] * 7] * 4, 2, [1, 1, 1, 1, 1, NAN, 1])},
}


def test_without_a_contradiction_all_is_well() -> None:
    labels, hidden = labelled(truth(INSTANCES, solid=True, boxes=BOXES), 0, CLASSES, ALL)
    assert ([one["object"] for one in labels], [one["object"] for one in hidden]) == ([0, 1], [2, 3])


@pytest.mark.parametrize("wrong", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_labels_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(LabelError, match=r"object \d of image 0 of its batch: .* The renderer's labels are at fault"):
        image_labels(truth(INSTANCES, solid=True, **wrong), 0, CLASSES, ALL)


def test_objects_of_other_classes_are_not_looked_at() -> None:
    """A road covers pixels, but is no category."""
    wrong = truth(INSTANCES, visible_boxes=with_row(BOXES, 1, [0, 0, 0, 0]))
    labels, hidden = labelled(wrong, 0, CLASSES, LabelFilter(("car",), 0.0, 1))
    assert [found["category"] for found in (*labels, *hidden)] == ["car", "car"]
