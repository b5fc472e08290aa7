"""Masks in COCO's forms: run lengths, compressed or not, and polygons."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from pycocotools import mask as coco_mask


class InstanceMask(NamedTuple):
    """The visible pixels of one object.

    Attributes:
        segmentation: COCO's compressed run-length encoding.
        area: Number of pixels.
        box: x0, y0, x1, y1 exactly around them.
    """

    segmentation: dict[str, Any]
    area: int
    box: tuple[int, int, int, int]


NO_PIXELS = InstanceMask({}, 0, (0, 0, 0, 0))


def instance_masks(instances: Int[np.ndarray, "h w"]) -> dict[int, InstanceMask]:
    """Encode the mask of each object in a map of instances."""
    columns = instances.T.reshape(-1)  # COCO's masks are column by column
    starts = np.flatnonzero(np.diff(columns, prepend=columns[0] - 1))
    runs, objects = np.stack([starts, np.append(starts[1:], columns.size)], 1), columns[starts]
    order = objects.argsort(kind="stable")
    numbers, first = np.unique(objects[order], return_index=True)
    parts = zip(numbers.tolist(), np.split(runs[order], first[1:]), strict=True)
    with _numpy_warnings_ignored():
        return {i: _encode_runs(part, instances.shape) for i, part in parts if i >= 0}


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Encode a mask in COCO's compressed run-length encoding."""
    with _numpy_warnings_ignored():
        encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def _encode_runs(runs: Int[np.ndarray, "r 2"], size: tuple[int, ...]) -> InstanceMask:
    """Encode a mask, given the first pixel of each of its runs and the one behind it."""
    lengths = np.diff(runs.reshape(-1), prepend=0, append=size[0] * size[1]).tolist()  # of gaps and runs in turn
    counts = lengths if lengths[-1] else lengths[:-1]
    encoded = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    segmentation = {"size": list(size), "counts": encoded["counts"].decode("ascii")}
    return InstanceMask(segmentation, sum(lengths[1::2]), _corners(coco_mask.toBbox(encoded).astype(int).tolist()))


def decode_mask(segmentation: Any, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Decode a mask of an image.

    Everything is checked before memory is taken: pycocotools trusts sizes and counts, and crashes on wrong ones.

    Args:
        segmentation: Polygons, or run lengths: a mapping with ``size`` and ``counts``.
        size: Height and width of the image.

    Raises:
        ValueError: If it is no mask, or belongs to an image of another size.
    """
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
        return _filled(segmentation, size)
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("a mask is a list of polygons, or has size and counts")
    if not isinstance(segmentation["size"], Sequence) or list(segmentation["size"]) != list(size):
        raise ValueError(f"a mask is of size {segmentation['size']}, but the image of {list(size)} (height and width)")
    counts = segmentation["counts"]
    runs = (
        list(counts) if isinstance(counts, Sequence) and not isinstance(counts, str | bytes) else _run_lengths(counts)
    )
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"the run lengths of a mask are not those of {size[0]} x {size[1]} pixels")
    inside = np.arange(len(runs)) % 2 == 1  # the first run is outside
    return np.repeat(inside, runs).reshape(size[1], size[0]).T  # column by column


def _run_lengths(counts: Any) -> list[int]:
    """Decode COCO's compressed run lengths: digits of base 32, the lowest first, of differences to the run before last.

    Raises:
        ValueError: If they are none.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    if not isinstance(text, bytes) or not all(48 <= code < 112 for code in text) or (text and text[-1] - 48 & 32):
        raise ValueError("the counts of a mask are no run lengths")
    runs: list[int] = []
    value = shift = 0
    for code in text:
        digit = code - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:  # more digits follow
            continue
        value -= (digit & 16) << (shift - 4)  # the sign
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _filled(polygons: Sequence[Any], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Fill polygons, each a list x0, y0, x1, y1, ... in pixels."""
    height, width = size
    if not polygons:
        raise ValueError("a mask has no polygons")
    for polygon in polygons:
        if not (isinstance(polygon, Sequence) and len(polygon) >= 6 and len(polygon) % 2 == 0):
            raise ValueError(f"a polygon has three or more corners x, y, not {str(polygon)[:80]}")
        for place, side in zip(polygon, [width, height] * (len(polygon) // 2), strict=True):
            # pycocotools takes memory for each pixel of the outline
            if not isinstance(place, int | float) or not math.isfinite(place) or not -side <= place <= 2 * side:
                raise ValueError(f"a polygon has a corner at {place!r}, far outside of {width} x {height} pixels")
    with _numpy_warnings_ignored():
        encoded = coco_mask.merge(coco_mask.frPyObjects([list(map(float, each)) for each in polygons], height, width))
        return coco_mask.decode(encoded).astype(bool)


@contextlib.contextmanager
def _numpy_warnings_ignored() -> Iterator[None]:
    """Ignore NumPy 2's DeprecationWarning about how pycocotools makes arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _corners(box: Sequence[int]) -> tuple[int, int, int, int]:
    """Convert x, y, width and height to x0, y0, x1, y1."""
    x, y, width, height = box
    return x, y, x + width, y + height
