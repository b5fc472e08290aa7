"""Average precision of object detectors: KITTI's protocol (easy, moderate, hard) and AP per class.

Images are described as torchvision's detection models do. *Detections* of an image have ``boxes`` (float[m 4], x0, y0,
x1, y1 in pixels), ``scores`` (float[m]) and ``labels`` (int[m]). Its *target* has ``boxes`` (float[n 4]) and ``labels``
(int[n]), and may have

- ``ignore`` (bool[n]): objects that are not counted, neither when they are detected nor when they are missed.
- ``regions`` (float[k 4]) and ``region_labels`` (int[k], 0 for any class): areas of unknown content. Detections
  in them are not counted.
- ``height`` (float[n], of the whole image's pixels before it was scaled), ``occlusion`` (int[n], KITTI's levels),
  ``truncation`` (float[n], 0..1) and ``scale`` (float[], pixels per original pixel), which difficulty depends on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.metrics.bootstrap import check_options, percentile_interval, resampled_counts
from ms2.metrics.intervals import Interval

Fields = Mapping[str, Tensor]
"""The detections or the target of one image."""
LEVELS: dict[str, Float[np.ndarray, " l"] | None] = {
    "area": None,
    "11": np.arange(11) / 10,
    "40": np.arange(1, 41) / 40,
    "101": np.linspace(0, 1, 101),  # as pycocotools makes them: 0.57 is not quite 57 / 100
}
"""Recall levels at which precision is averaged, by the name of the interpolation.

``area`` is all of them, the area under the curve (VOC 2010 to 2012); ``11`` VOC 2007, ``40`` KITTI since 2019, ``101``
COCO. Precision at a recall is the best at that or any higher recall, and 0 where no recall is as high.
"""


class Difficulty(NamedTuple):
    """One of KITTI's difficulty levels: the objects that count.

    Attributes:
        height: Box heights that count are above this, in pixels of the original image.
        occlusion: Highest level of occlusion: 0 fully visible, 1 partly, 2 largely occluded.
        truncation: Largest share outside the image.
    """

    height: float
    occlusion: int
    truncation: float


DIFFICULTIES = {
    "easy": Difficulty(40, 0, 0.15),
    "moderate": Difficulty(25, 1, 0.30),
    "hard": Difficulty(25, 2, 0.50),
}


MIN_KITTI_OBJECTS = 41
"""Number of objects below which `kitti_ap` is unreliable, and not that of KITTI's own program."""


@dataclass(frozen=True)
class MatchedDetections:
    """True and false positives among the d detections of one class in n images.

    Attributes:
        scores: Score of each detection.
        hits: Whether it is a true positive.
        image: Index of its image.
        positives: Objects to be detected in each image.
    """

    scores: Float[Tensor, " d"]
    hits: Bool[Tensor, " d"]
    image: Int[Tensor, " d"]
    positives: Int[Tensor, " n"]


@dataclass(frozen=True)
class KittiAP(Interval):
    """KITTI's AP of a class at a difficulty, with its interval.

    Attributes:
        num_objects: Objects that count. AP of fewer than `MIN_KITTI_OBJECTS` is unreliable, see `kitti_ap`.
    """

    num_objects: int


def kitti_ap(
    detections: Sequence[Fields],
    targets: Sequence[Fields],
    label: int,
    *,
    generator: torch.Generator,
    iou: float = 0.5,
    interpolation: str = "40",
    resamples: int = 500,
    level: float = 0.95,
) -> dict[str, KittiAP]:
    """Compute the AP of one class on ``easy``, ``moderate`` and ``hard`` objects (KITTI; Geiger et al. 2012).

    - An object counts if its box is higher than 40, 25 and 25 pixels of the original image, its occlusion at most 0, 1
      and 2, and its truncation at most 0.15, 0.30 and 0.50. Harder objects of the class are ignored, as are those whose
      ``ignore`` is set: a ``Van`` for cars, a ``Person_sitting`` for pedestrians.
    - Detections with boxes below that height, in pixels of the original image, are left out.
    - A detection matches an object if their boxes overlap by `iou` or more, intersection over union. The paper's is
      0.5; KITTI's own is 0.7 for cars and 0.5 for people. In the order of their scores detections take the best overlap
      among the objects that are not yet matched, counted objects before ignored ones.
    - A detection without an object is left out if `iou` or more of its own area lies in a region (``DontCare``), else
      it is a false positive.
    - AP is the mean of the interpolated precision at the recalls 1/40 ... 40/40.

    KITTI's own program differs in details. Objects choose among detections, which matters only where detections of a
    class overlap; and precision is taken at the scores of the hits whose recalls are nearest to 0/40 ... 40/40, so that
    its AP is usually higher by about 0.01, and differs by at most 0.025. With n objects, fewer than 41
    (`MIN_KITTI_OBJECTS`), it takes the score of every hit, of which there are too few for the 41 places. Precision
    counts as 0 at the rest, and its AP is at most (n - 1) / 40, lower than this one by up to (41 - n) / 40: 0.1 with 37
    objects, 0.5 with 21. Such an AP compares with none of KITTI's, and changes by about 1 / n with each object found.

    Args:
        detections: Of each image.
        targets: Of each image; see the module.
        label: The class.
        generator: Draws the images of the bootstrap.
        iou: Minimum IoU of a detection and its object, above 0 and at most 1.
        interpolation: See `LEVELS`.
        resamples: Resamples of the bootstrap.
        level: Confidence level of the intervals.

    Returns:
        By difficulty the AP in 0..1, with an interval by bootstrap over images, and the number of objects; NaN where
        there are no such objects.

    Raises:
        UserError: If an argument is impossible.
    """
    _check(detections, targets, iou)
    lacking = {"height", "occlusion", "truncation", "scale"} - targets[0].keys()
    if lacking:
        raise UserError(f"targets without {', '.join(sorted(lacking))} have no easy and hard objects: use mean_ap")
    outcomes = {}
    for name, difficulty in DIFFICULTIES.items():
        high = [_high_enough(found, target, difficulty) for found, target in zip(detections, targets, strict=True)]
        outcomes[name] = match_detections(high, [_harder_ignored(target, difficulty) for target in targets], label, iou)
    found = _intervals(outcomes, generator, interpolation, resamples, level)
    return {name: KittiAP(ap.value, ap.low, ap.high, int(outcomes[name].positives.sum())) for name, ap in found.items()}


def mean_ap(
    detections: Sequence[Fields],
    targets: Sequence[Fields],
    categories: Sequence[str],
    *,
    generator: torch.Generator,
    iou: float = 0.5,
    interpolation: str = "101",
    resamples: int = 500,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Compute the AP of each class and their mean (``mean``, mAP); by default COCO's AP50.

    All objects count whose ``ignore`` is not set, however small or occluded. Unlike COCO's, detections are not limited
    in number, and those with equal scores come together: which one stands first makes no difference.

    Args:
        detections: Of each image.
        targets: Of each image; see the module.
        categories: Names of the classes, that of label 1 first.
        generator: Draws the images of the bootstrap.
        iou: Minimum IoU of a detection and its object, above 0 and at most 1.
        interpolation: See `LEVELS`.
        resamples: Resamples of the bootstrap.
        level: Confidence level of the intervals.

    Returns:
        By class the AP in 0..1, and an interval by bootstrap over images; NaN for a class without objects, which the
        mean leaves out.

    Raises:
        UserError: If an argument is impossible.
    """
    if "mean" in categories:
        raise UserError("a class is called 'mean', which is what the mean over classes is called: rename it")
    outcomes = {name: match_detections(detections, targets, label, iou) for label, name in enumerate(categories, 1)}
    return _intervals(outcomes, generator, interpolation, resamples, level, mean=True)


def average_precision(outcome: MatchedDetections, interpolation: str = "101") -> float:
    """Compute AP in 0..1; NaN if there are no objects.

    Detections of equal scores come together or not at all, so that their order makes no difference.
    """
    return float(_precisions(outcome, torch.ones(1, len(outcome.positives)), interpolation))


def match_detections(
    detections: Sequence[Fields], targets: Sequence[Fields], label: int, iou: float = 0.5
) -> MatchedDetections:
    """Match detections of a class to objects, as `kitti_ap` describes; detections that don't count are left out.

    Args:
        detections: Of each image.
        targets: Of each image; see the module.
        label: The class.
        iou: Minimum IoU of a detection and its object, above 0 and at most 1.

    Raises:
        UserError: If the IoU is impossible, or there are more or fewer detections than targets.
    """
    _check(detections, targets, iou)
    scores, hits, image, positives = [], [], [], []
    for i, (found, target) in enumerate(zip(detections, targets, strict=True)):
        of_class = found["labels"] == label
        score, order = found["scores"][of_class].double().sort(descending=True, stable=True)
        outcome, number = _match(found["boxes"][of_class][order], target, label, iou)
        counted = outcome >= 0
        scores.append(score[counted])
        hits.append(outcome[counted] == 1)
        image.append(torch.full((int(counted.sum()),), i))
        positives.append(number)
    return MatchedDetections(torch.cat(scores), torch.cat(hits), torch.cat(image), torch.tensor(positives))


def box_iou(
    boxes: Float[Tensor, "m 4"], others: Float[Tensor, "n 4"], normalise_by_first: bool = False
) -> Float[Tensor, "m n"]:
    """Compute IoU of boxes (x0, y0, x1, y1), or intersection over the first box's area; 0 for empty boxes."""
    boxes, others = boxes.double(), others.double()
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area, other = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (boxes, others))
    whole = area[:, None].expand_as(both) if normalise_by_first else area[:, None] + other - both
    return both / whole.where(whole > 0, torch.ones_like(whole))


def occlusion_level(visibility: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Compute KITTI's occlusion level from visibility: 0 from 80 %, 1 from 50 %, 2 below.

    KITTI's annotators judged by eye; with these shares the same protocol applies to synthetic test sets.
    """
    return (visibility < 0.8).long() + (visibility < 0.5).long()


def _check(detections: Sequence[Fields], targets: Sequence[Fields], iou: float) -> None:
    if not 0 < iou <= 1:
        raise UserError(f"iou is {iou}: give the minimum IoU of a detection and its object, above 0 and at most 1")
    if len(detections) != len(targets):
        raise UserError(
            f"there are detections of {len(detections)} images, but targets of {len(targets)}: pass both of each image"
        )
    if not targets:
        raise UserError("there are no images to measure on")


def _match(boxes: Float[Tensor, "m 4"], target: Fields, label: int, iou: float) -> tuple[Int[Tensor, " m"], int]:
    """For detections of one image by falling score: 1 matched, 0 not, -1 not counted; and the number of objects."""
    mine = target["labels"] == label
    ignored = target["ignore"][mine] if "ignore" in target else torch.zeros(int(mine.sum())).bool()
    table = box_iou(boxes, target["boxes"][mine]).numpy().copy()
    outcome = np.zeros(len(boxes), dtype=np.int64)
    for free, value in ((~ignored.numpy(), 1), (ignored.numpy(), -1)):
        # a detection takes a counted object if it can; which ignored one it takes else, doesn't touch the counted ones
        free = free.copy()
        for i in np.flatnonzero(outcome == 0):
            best = np.where(free, table[i], -1).argmax() if free.any() else -1
            if best >= 0 and table[i, best] >= iou:
                outcome[i], free[best] = value, False
    if "regions" in target:
        there = (target["region_labels"] == label) | (target["region_labels"] == 0)
        inside = box_iou(boxes, target["regions"][there], normalise_by_first=True).numpy()
        outcome[(outcome == 0) & (inside >= iou).any(1)] = -1
    return torch.from_numpy(outcome), int((~ignored).sum())


def _high_enough(detections: Fields, target: Fields, difficulty: Difficulty) -> Fields:
    """The detections whose boxes reach the difficulty's minimum height."""
    boxes = detections["boxes"]
    kept = boxes[:, 3] - boxes[:, 1] >= difficulty.height * float(target["scale"])
    return {name: detections[name][kept] for name in ("boxes", "scores", "labels")}


def _harder_ignored(target: Fields, difficulty: Difficulty) -> Fields:
    """The target, with the objects ignored that are harder than the difficulty."""
    harder = (
        (target["height"] <= difficulty.height)
        | (target["occlusion"] > difficulty.occlusion)
        | (target["truncation"] > difficulty.truncation)
    )
    return {**target, "ignore": target["ignore"] | harder if "ignore" in target else harder}


def _intervals(
    outcomes: Mapping[str, MatchedDetections],
    generator: torch.Generator,
    interpolation: str,
    resamples: int,
    level: float,
    mean: bool = False,
) -> dict[str, Interval]:
    """AP of each outcome, with percentiles over sets of images drawn with replacement, the same for all outcomes."""
    if interpolation not in LEVELS:
        raise UserError(f"there is no interpolation {interpolation!r}. {suggest(interpolation, LEVELS)}")
    check_options(resamples, level)
    if not outcomes:
        raise UserError("there are no classes to measure: name at least one")
    n = len(next(iter(outcomes.values())).positives)
    width = max(len(one.scores) for one in outcomes.values())
    resampled = resampled_counts(n, n, resamples, generator, width=width, dtype=torch.float32)
    rows = []
    for times in chain([torch.ones(1, n)], resampled):
        rows.append(torch.stack([_precisions(one, times.cpu(), interpolation) for one in outcomes.values()]))
    table = dict(zip(outcomes, torch.cat(rows, 1), strict=True))  # of each, the value of all images first
    if mean:
        table = {"mean": torch.stack(list(table.values())).nanmean(0)} | table
    return {name: percentile_interval(values, level) for name, values in table.items()}


def _precisions(outcome: MatchedDetections, times: Float[Tensor, "r n"], interpolation: str) -> Float[Tensor, " r"]:
    """AP of r sets of images, given how often each holds each image; NaN for sets without objects."""
    times = times.double()
    positives = (times * outcome.positives).sum(1, keepdim=True)
    scores, order = outcome.scores.sort(descending=True)
    weights, hits = times[:, outcome.image[order]], outcome.hits[order]
    last = torch.ones_like(hits)  # of equal scores
    last[:-1] = scores[:-1] != scores[1:]
    found, all_of_them = (weights * hits).cumsum(1)[:, last], weights.cumsum(1)[:, last]
    recall = found / positives
    precision = found / all_of_them.clamp(min=1)
    best = precision.flip(1).cummax(1).values.flip(1)
    grid = LEVELS[interpolation]
    if grid is None:
        ap = (recall.diff(dim=1, prepend=torch.zeros_like(positives)) * best).sum(1)
    else:
        places = torch.searchsorted(recall.contiguous(), torch.from_numpy(grid).expand(len(times), -1).contiguous())
        ap = torch.cat([best, torch.zeros_like(positives)], 1).gather(1, places).mean(1)
    return ap.where(positives[:, 0] > 0, torch.nan)
