"""What a detector misses and what it makes up, in images whose objects are known: by class, height and score."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ms2.features.detection.detections import Detections, pairwise_overlap
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.render.base import Rendering

MIN_IOU = 0.5
"""Intersection over union from which a detection shows an object, as in KITTI's and COCO's evaluation of people."""


class DetectorErrors(NamedTuple):
    """Objects of one class in m images and which of them are found, and detections that show none.

    Attributes:
        heights: Heights of the o objects in pixels.
        found: Whether each is found.
        false_heights: Heights of the f detections that show no object of the class.
    """

    heights: Float[Tensor, " o"]
    found: Bool[Tensor, " o"]
    false_heights: Float[Tensor, " f"]

    def at_least(self, height: float) -> "DetectorErrors":
        """Leave out objects and detections of less than a height."""
        kept = self.heights >= height
        return DetectorErrors(self.heights[kept], self.found[kept], self.false_heights[self.false_heights >= height])

    def below(self, height: float) -> "DetectorErrors":
        """Leave out objects and detections of at least a height."""
        kept = self.heights < height
        return DetectorErrors(self.heights[kept], self.found[kept], self.false_heights[self.false_heights < height])

    @property
    def recall(self) -> float:
        """Fraction of the objects that are found; 0 without any."""
        return float(self.found.float().mean()) if len(self.found) else 0.0

    @property
    def precision(self) -> float:
        """Fraction of the detections that show an object; 0 without any."""
        hits, false = int(self.found.sum()), len(self.false_heights)
        return hits / (hits + false) if hits + false else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        hits, false = int(self.found.sum()), len(self.false_heights)
        return 2 * hits / (hits + false + len(self.found)) if len(self.found) else 0.0


def detector_errors(
    features: DetectorCounts,
    found: Detections,
    labels: Rendering,
    min_score: float,
    alike: Collection[str] = (),
) -> dict[str, DetectorErrors]:
    """Compare detections in rendered images with the objects there, by class.

    A detection shows the object whose box, amodal or visible, it overlaps most, if it is the object's most overlapping
    detection too. Objects of which too little is visible are left out, and so is what shows them.

    Args:
        features: The extractor, whose rules say of which class a detection is.
        found: What its detector finds in the images, of any score.
        labels: The images' objects.
        min_score: Score from which a detection counts, of every class.
        alike: Classes that renders may show alike where photographs do not: a detection of one of them shows an object
            of any of them.
    """
    classes, boxes = features.classify(found, min_score)
    errors = {}
    places = torch.tensor(features.places, device=classes.device)
    for number, name in enumerate(features.counted):
        group = [i for i, other in enumerate(features.counted) if other == name or {other, name} <= set(alike)]
        members = torch.tensor(group, device=classes.device)
        is_object, is_box = torch.isin(labels.classes, places[members]), torch.isin(classes, members)
        iou = torch.maximum(*(pairwise_overlap(some, boxes).iou for some in (labels.boxes, labels.visible_boxes)))
        iou = iou.where(is_object.unsqueeze(2) & is_box.unsqueeze(1), 0)
        is_found, is_shown = _mutual(iou)
        counted = (labels.classes == places[number]) & (labels.visibility >= features.min_visibility)
        heights = labels.boxes[..., 3] - labels.boxes[..., 1]
        false = (boxes[..., 3] - boxes[..., 1])[(classes == number) & ~is_shown]
        errors[name] = DetectorErrors(heights[counted], is_found[counted], false)
    return errors


def join_errors(parts: list[dict[str, DetectorErrors]]) -> dict[str, DetectorErrors]:
    """Put the errors in several batches together."""
    return {
        name: DetectorErrors(*map(torch.cat, zip(*(part[name] for part in parts), strict=True))) for name in parts[0]
    }


def _mutual(iou: Float[Tensor, "b o n"]) -> tuple[Bool[Tensor, "b o"], Bool[Tensor, "b n"]]:
    """Return which objects are found, and which detections show an object."""
    if not iou.shape[1] or not iou.shape[2]:
        return iou.new_zeros(iou.shape[:2]).bool(), iou.new_zeros(iou.shape[::2]).bool()
    best, shown = iou.max(2)
    owner = iou.argmax(1)
    is_found = (best >= MIN_IOU) & (owner.gather(1, shown) == torch.arange(iou.shape[1], device=iou.device))
    most, object_ = iou.max(1)
    back = iou.argmax(2).gather(1, object_)
    is_shown = (most >= MIN_IOU) & (back == torch.arange(iou.shape[2], device=iou.device))
    return is_found, is_shown
