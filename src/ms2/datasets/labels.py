"""Labels of rendered images, and the gate that lets no broken one through."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as rle

from ms2.render.base import Rendering

SLACK = 1.0
"""Pixels by which what is visible may reach over the whole object's box, which need not lie on the pixels' grid."""


class LabelError(ValueError):
    """A renderer gave labels that contradict each other, or its image."""


class Rule(NamedTuple):
    """Which objects are labelled. The others are hidden: listed in an image's record, and ignored by the formats.

    Attributes:
        categories: Classes that are labelled at all.
        min_visibility: Least visible share of an object's pixels.
        min_pixels: Fewest visible pixels.
    """

    categories: tuple[str, ...]
    min_visibility: float
    min_pixels: int

    def __str__(self) -> str:
        return (
            f"An object is labelled if at least {self.min_visibility:.0%} of its pixels, and at least "
            f"{self.min_pixels} of them, are visible in the image. Others are hidden: COCO and YOLO leave them out, "
            "KITTI has them as DontCare, and they stand under `hidden` in `scenes/`."
        )


class Arrays(NamedTuple):
    """A `Rendering` without its images, on the CPU."""

    classes: Int[np.ndarray, "b n"]
    boxes: Float[np.ndarray, "b n 4"]
    visible_boxes: Float[np.ndarray, "b n 4"]
    instances: Int[np.ndarray, "b h w"]
    visibility: Float[np.ndarray, "b n"]
    truncation: Float[np.ndarray, "b n"] | None
    boxes3d: Float[np.ndarray, "b n 7"] | None

    @classmethod
    def of(cls, rendering: Rendering) -> "Arrays":
        """The arrays of a rendering; those of 3D scenes are None where it has none."""
        found = (getattr(rendering, name, None) for name in cls._fields)
        return cls._make(None if value is None else value.cpu().numpy() for value in found)


def label(
    arrays: Arrays, image: int, classes: Sequence[str], rule: Rule
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Labels of one image, and the hidden objects, as plain data.

    Boxes are x, y, width and height in pixels, from edge to edge. ``bbox`` is around what is visible, and exactly
    around the mask; ``amodal_bbox`` is around the whole object, cut by the image's edges.

    Args:
        arrays: What the renderer said.
        image: Number of the image among them.
        classes: Names of the classes.
        rule: Which objects are labelled.

    Raises:
        LabelError: If the labels contradict each other.
    """
    instances = arrays.instances[image]
    masks, numbers = _masks(instances), arrays.classes[image].tolist()
    height, width = instances.shape
    whole = _short(arrays.boxes[image].clip(0, (width, height, width, height)))
    told = arrays.visible_boxes[image].tolist()
    rounded = {
        name: _short(values[image])
        for name, values in (
            ("visibility", arrays.visibility), ("truncation", arrays.truncation), ("box3d", arrays.boxes3d)
        )
        if values is not None
    }  # fmt: skip
    for i in masks:
        if i >= len(numbers) or numbers[i] < 0:
            raise _fault(image, i, "pixels show it, but there is no such object")
    labels, hidden = [], []
    for i, number in enumerate(numbers):
        if number < 0 or classes[number] not in rule.categories:
            continue
        counts, area, box = masks.get(i, ([], 0, (0, 0, 0, 0)))
        share = float(arrays.visibility[image, i])
        wrong = _contradiction(told[i], share, area, box, whole[i]) or _no_number(arrays, image, i)
        if wrong:
            raise _fault(image, i, wrong)
        found: dict[str, Any] = {"object": i, "category": classes[number]}
        if area:
            found |= {"bbox": _sized(box), "area": area}
        found |= {name: values[i] for name, values in rounded.items()}
        if not area or area < rule.min_pixels or share < rule.min_visibility:
            hidden.append(found)
            continue
        found["amodal_bbox"] = _sized(_around(whole[i], box))
        found["segmentation"] = _compressed(counts, instances.shape)
        labels.append(found)
    return labels, hidden


def _masks(instances: Int[np.ndarray, "h w"]) -> dict[int, tuple[list[int], int, tuple[int, int, int, int]]]:
    """By object: run lengths of its mask down the columns, as COCO has them, its area, and the box x0, y0, x1, y1."""
    height = instances.shape[0]
    flat = instances.T.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=-2))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    begin, end, owner = starts[order], ends[order], flat[starts][order]
    begin, end, owner = begin[owner >= 0], end[owner >= 0], owner[owner >= 0]
    first = np.flatnonzero(np.diff(owner, prepend=-1))  # each object's first run
    if not len(first):
        return {}
    last = np.append(first[1:], len(owner)) - 1
    # a run may go on over the end of a column, and then covers the image's height
    whole = (end - 1) // height > begin // height
    top, bottom = np.where(whole, 0, begin % height), np.where(whole, height, (end - 1) % height + 1)
    boxes = np.stack(
        [
            begin[first] // height,
            np.minimum.reduceat(top, first),
            (end[last] - 1) // height + 1,
            np.maximum.reduceat(bottom, first),
        ],
        1,
    )
    areas = np.add.reduceat(end - begin, first)
    gaps = np.diff(end, prepend=0)  # unused at each object's first run
    gaps[1:] = begin[1:] - end[:-1]
    gaps[first] = begin[first]
    counts = np.stack([gaps, end - begin], 1)
    rest = flat.size - end[last]
    found = {}
    for i, (a, b, area, box, left) in enumerate(zip(first, last, areas.tolist(), boxes.tolist(), rest, strict=True)):
        runs = counts[a : b + 1].reshape(-1).tolist()
        found[int(owner[first[i]])] = ([*runs, int(left)] if left else runs, area, tuple(box))
    return found


def _compressed(counts: list[int], size: tuple[int, ...]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths."""
    packed = rle.frPyObjects({"size": list(size), "counts": counts}, *size)
    return {"size": list(size), "counts": packed["counts"].decode("ascii")}


def _contradiction(
    told: Sequence[float], share: float, area: int, box: Sequence[int], whole: Sequence[float]
) -> str | None:
    """What is wrong with the renderer's boxes and visible share, by what the map of instances shows."""
    if area and list(told) != list(box):
        return f"the visible box is {told}, but the box around the pixels is {list(box)}"
    if not area and any(told):
        return f"the visible box is {told}, but no pixel shows it"
    if (area and not share) or not 0 <= share <= 1:  # a share of samples may be seen where no whole pixel is
        return f"the visible share is {share}, and {area} pixels show it"
    # so written that NaN is refused
    if area and not all(abs(a - b) <= SLACK for a, b in zip(_around(whole, box), whole, strict=True)):
        return f"the box of the whole object, {whole}, does not hold the visible part's, {list(box)}"
    return None


def _no_number(arrays: Arrays, image: int, i: int) -> str | None:
    """What is wrong with what the renderer says of an object in space."""
    if arrays.truncation is not None and not 0 <= arrays.truncation[image, i] <= 1:
        return f"the share outside of the image is {arrays.truncation[image, i]}"
    if arrays.boxes3d is not None and not np.isfinite(arrays.boxes3d[image, i]).all():
        return f"the 3D box is {arrays.boxes3d[image, i].tolist()}"
    return None


def _fault(image: int, i: int, wrong: str) -> LabelError:
    return LabelError(f"object {i} of image {image} of its batch: {wrong}. The renderer's labels are at fault.")


def _around(whole: Sequence[float], visible: Sequence[int]) -> tuple[float, float, float, float]:
    """The box around both."""
    return (
        min(whole[0], visible[0]),
        min(whole[1], visible[1]),
        max(whole[2], visible[2]),
        max(whole[3], visible[3]),
    )


def _sized(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)]


def _short(values: Float[np.ndarray, "..."]) -> list[Any]:
    """Rounded to what a label needs: a thousandth of a metre, of a radian, of the whole."""
    rounded: list[Any] = values.astype(np.float64).round(3).tolist()
    return rounded


def decode(segmentation: dict[str, Any]) -> Bool[np.ndarray, "h w"]:
    """The mask of a label."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, at how pycocotools makes arrays
        return rle.decode(segmentation).astype(bool)
