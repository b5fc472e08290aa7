"""Labels of rendered images, with consistency checks."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ms2.core.errors import UserError, suggest
from ms2.datasets.labelled_set import NameIndex
from ms2.datasets.masks import NO_PIXELS, InstanceMask, instance_masks
from ms2.datasets.records import ObjectLabel
from ms2.render.base import Rendering
from ms2.world import World

PIXEL_TOLERANCE = 1.0
"""Pixels by which the visible part may exceed the whole object's box, which need not lie on the pixel grid."""


class LabelError(ValueError):
    """The renderer's labels are inconsistent with each other, or with its image."""


class LabelFilter(NamedTuple):
    """Thresholds below which objects are not labelled, but hidden: listed in records as such.

    COCO and YOLO leave hidden objects out, KITTI has them as DontCare, and `GeneratedSet` as regions to ignore.

    Attributes:
        categories: Classes that are labelled.
        min_visibility: Minimum visible fraction of an object's pixels.
        min_pixels: Minimum number of visible pixels.
    """

    categories: tuple[str, ...]
    min_visibility: float
    min_pixels: int

    def keeps(self, area: int, visibility: float) -> bool:
        """Return whether an object of this visible area is labelled."""
        return area >= self.min_pixels and visibility >= self.min_visibility

    def __str__(self) -> str:
        return (
            f"An object is labelled if at least {self.min_visibility:.0%} of its pixels, and at least "
            f"{self.min_pixels} of them, are visible in the image. Others are hidden: COCO and YOLO leave them out, "
            "KITTI has them as DontCare, and records list them under `hidden`."
        )


class LabelArrays(NamedTuple):
    """The label tensors of a `Rendering` as NumPy arrays; 3D fields are None for 2D renderers."""

    classes: Int[np.ndarray, "b n"]
    boxes: Float[np.ndarray, "b n 4"]
    visible_boxes: Float[np.ndarray, "b n 4"]
    instances: Int[np.ndarray, "b h w"]
    visibility: Float[np.ndarray, "b n"]
    truncation: Float[np.ndarray, "b n"] | None
    boxes3d: Float[np.ndarray, "b n 7"] | None

    @classmethod
    def from_rendering(cls, rendering: Rendering) -> "LabelArrays":
        """Convert the label tensors of a rendering."""
        found = (getattr(rendering, name, None) for name in cls._fields)
        return cls._make(None if value is None else value.cpu().numpy() for value in found)


def default_categories(world: World) -> tuple[str, ...]:
    """Return the classes that are labelled by default: the grammar's terminals and the scenery's classes."""
    return tuple(name for name in world.classes if name not in world.grammar.nonterminals)


def categories_of(world: World, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the classes that are labelled, in the world's order.

    Args:
        world: The world.
        classes: Their names, whatever their case; those of `default_categories` by default.

    Raises:
        UserError: If the world lacks one.
    """
    known = NameIndex(world.classes)
    for name in classes or ():
        if name not in known:
            raise UserError(f"this world has no class {name!r}. {suggest(name, world.classes)}")
    wanted = {known.get(name) for name in (default_categories(world) if classes is None else classes)}
    return tuple(name for i, name in enumerate(world.classes) if i in wanted)


def image_labels(
    arrays: LabelArrays, image: int, classes: Sequence[str], label_filter: LabelFilter
) -> tuple[list[ObjectLabel], list[ObjectLabel]]:
    """Build the labels and hidden objects of one image.

    Args:
        arrays: The renderer's labels.
        image: Index of the image.
        classes: Names of the classes.
        label_filter: Which objects are labelled.

    Raises:
        LabelError: If the renderer's labels are inconsistent.
    """
    instances = arrays.instances[image]
    masks, class_indices = instance_masks(instances), arrays.classes[image].tolist()
    for i in masks:
        if i >= len(class_indices) or class_indices[i] < 0:
            raise _label_error(image, i, "it has pixels, but there is no such object")
    height, width = instances.shape
    amodal_boxes = _round(arrays.boxes[image].clip(0, (width, height, width, height)))
    visibility = _round(arrays.visibility[image])
    truncation = None if arrays.truncation is None else _round(arrays.truncation[image])
    boxes3d = None if arrays.boxes3d is None else _round(arrays.boxes3d[image])
    labels, hidden = [], []
    for i, class_index in enumerate(class_indices):
        if class_index < 0 or classes[class_index] not in label_filter.categories:
            continue
        mask = masks.get(i, NO_PIXELS)
        _check_object(arrays, image, i, mask, amodal_boxes[i])
        label = ObjectLabel(
            object=i,
            category=classes[class_index],
            bbox=_with_size(mask.box) if mask.area else None,
            area=mask.area or None,
            visibility=visibility[i],
            truncation=None if truncation is None else truncation[i],
            box3d=None if boxes3d is None else boxes3d[i],
        )
        if not mask.area or not label_filter.keeps(mask.area, float(arrays.visibility[image, i])):
            hidden.append(label)
            continue
        amodal = _with_size(_union(amodal_boxes[i], mask.box))
        labels.append(dataclasses.replace(label, amodal_bbox=amodal, segmentation=mask.segmentation))
    return labels, hidden


# -- consistency ---------------------------------------------------------------------------------------


def _check_object(arrays: LabelArrays, image: int, i: int, mask: InstanceMask, amodal_box: Sequence[float]) -> None:
    """Check the renderer's boxes and fractions of an object against its pixels."""
    problem = _inconsistency(
        arrays.visible_boxes[image, i].tolist(), float(arrays.visibility[image, i]), mask, amodal_box
    )
    # comparisons are written such that NaN fails them
    if problem is None and arrays.truncation is not None and not 0 <= arrays.truncation[image, i] <= 1:
        problem = f"the fraction outside the image is {arrays.truncation[image, i]}"
    if problem is None and arrays.boxes3d is not None and not np.isfinite(arrays.boxes3d[image, i]).all():
        problem = f"the 3D box is {arrays.boxes3d[image, i].tolist()}"
    if problem is not None:
        raise _label_error(image, i, problem)


def _inconsistency(
    visible_box: Sequence[float], visibility: float, mask: InstanceMask, amodal_box: Sequence[float]
) -> str | None:
    """Describe the first inconsistency of an object's 2D labels with its pixels."""
    area, box = mask.area, list(mask.box)
    if area and list(visible_box) != box:
        return f"the visible box is {visible_box}, but the box around the pixels is {box}"
    if not area and any(visible_box):
        return f"the visible box is {visible_box}, but the object has no pixel"
    # an object may be visible at some samples of a pixel, but at no whole pixel
    if (area and not visibility) or not 0 <= visibility <= 1:
        return f"the visible fraction is {visibility}, but the object has {area} pixels"
    excess = (abs(a - b) for a, b in zip(_union(amodal_box, box), amodal_box, strict=True))
    if area and not all(pixels <= PIXEL_TOLERANCE for pixels in excess):
        return f"the box of the whole object, {amodal_box}, does not contain the visible part's, {box}"
    return None


def _label_error(image: int, i: int, problem: str) -> LabelError:
    return LabelError(f"object {i} of image {image} of its batch: {problem}. The renderer's labels are at fault.")


# -- boxes ---------------------------------------------------------------------------------------------


def _union(amodal: Sequence[float], visible: Sequence[int]) -> tuple[float, float, float, float]:
    """Compute the box around two boxes."""
    return (
        min(amodal[0], visible[0]),
        min(amodal[1], visible[1]),
        max(amodal[2], visible[2]),
        max(amodal[3], visible[3]),
    )


def _with_size(box: Sequence[float]) -> list[float]:
    """Convert x0, y0, x1, y1 to x, y, width and height."""
    x0, y0, x1, y1 = box
    return [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)]


def _round(values: Float[np.ndarray, "..."]) -> list[Any]:
    """Round to thousandths: of a pixel, a metre, a radian or a fraction."""
    rounded: list[Any] = values.astype(np.float64).round(3).tolist()
    return rounded
