"""Average precision of object detectors: KITTI's protocol for easy, moderate and hard objects, and plain AP per class.

Images are described as torchvision's detection models do. *Detections* of an image have ``boxes`` (float[m 4], x0, y0,
x1, y1 in pixels), ``scores`` (float[m]) and ``labels`` (int[m]). Its *target* has ``boxes`` (float[n 4]) and ``labels``
(int[n]), and may have

- ``ignore`` (bool[n]): objects that are not counted. To find one is no mistake, nor is to miss it.
- ``regions`` (float[k 4]) and ``region_labels`` (int[k], 0 for any class): areas of which nobody knows what is in
  them. They swallow any number of detections.
- ``height`` (float[n], of the whole image's pixels before it was scaled), ``occlusion`` (int[n], KITTI's levels),
  ``truncation`` (float[n], 0..1) and ``scale`` (float[], pixels per original pixel), which difficulty depends on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.metrics.intervals import Interval

Fields = Mapping[str, Tensor]
"""The detections or the target of one image."""
LEVELS: dict[str, Float[np.ndarray, " l"] | None] = {
    "area": None,
    "11": np.arange(11) / 10,
    "40": np.arange(1, 41) / 40,
    "101": np.linspace(0, 1, 101),  # as pycocotools makes them: 0.57 is not quite 57 / 100
}
"""Recalls at which precision is averaged, by the interpolation's name.

``area`` is all of them, the area under the curve (VOC 2010 to 2012); ``11`` VOC 2007, ``40`` KITTI since 2019, ``101``
COCO. Precision at a recall is the best at that or any higher recall, and 0 where no recall is as high.
"""
CHUNK = 2_000_000  # numbers of 8 bytes held at once by the bootstrap


class Difficulty(NamedTuple):
    """Which objects KITTI counts.

    Attributes:
        height: They are higher than this, in pixels of the original image.
        occlusion: Most occlusion: 0 fully visible, 1 partly, 2 largely occluded.
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


@dataclass(frozen=True)
class Outcome:
    """What became of the d counted detections of one class in n images.

    Attributes:
        scores: Score of each detection.
        hits: Whether it found an object; if not, it is a false alarm.
        image: Place of its image.
        positives: Objects to be found in each image.
    """

    scores: Float[Tensor, " d"]
    hits: Bool[Tensor, " d"]
    image: Int[Tensor, " d"]
    positives: Int[Tensor, " n"]


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
) -> dict[str, Interval]:
    """AP of one class on ``easy``, ``moderate`` and ``hard`` objects by KITTI's protocol (Geiger et al. 2012).

    - An object counts if its box is higher than 40, 25 and 25 pixels of the original image, its occlusion at most 0, 1
      and 2, and its truncation at most 0.15, 0.30 and 0.50. Harder objects of the class are ignored, as are those whose
      ``ignore`` is set: a ``Van`` where cars are looked for, a ``Person_sitting`` where pedestrians are.
    - Detections lower than the least height, in pixels of the original image, are left out.
    - A detection finds an object if their boxes overlap by `iou` or more, intersection over union. The paper's is 0.5;
      KITTI's own is 0.7 for cars and 0.5 for people. In the order of their scores detections choose the best overlap
      among the objects that are not yet found, counted objects before ignored ones.
    - What found nothing is left out if `iou` or more of its own area lies in a region (``DontCare``), else it is a
      false alarm.
    - AP is the mean of the interpolated precision at the recalls 1/40 ... 40/40.

    KITTI's own program differs in details. Objects choose among detections, which matters only where detections of a
    class overlap; and precision is taken at the 41 scores whose recall is nearest to 0/40 ... 40/40, so that AP differs
    by about 0.01, and cannot reach 1 with fewer than 40 objects.

    Args:
        detections: Of each image.
        targets: Of each image; see the module.
        label: The class.
        generator: Draws the images of the bootstrap.
        iou: Least overlap, over 0 and up to 1.
        interpolation: See `LEVELS`.
        resamples: Resamples of the bootstrap.
        level: Confidence of the intervals.

    Returns:
        By difficulty the AP in 0..1, and an interval by bootstrap over images; NaN where there are no such objects.

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
        outcomes[name] = match(high, [_harder_ignored(target, difficulty) for target in targets], label, iou)
    return _intervals(outcomes, generator, interpolation, resamples, level)


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
    """AP of each class and their mean, ``mean`` (mAP); as COCO's AP50 if nothing else is said.

    All objects count whose ``ignore`` is not set, however small or occluded. Unlike COCO's, detections are not limited
    in number, and those with equal scores come together: which one stands first makes no difference.

    Args:
        detections: Of each image.
        targets: Of each image; see the module.
        categories: Names of the classes, that of label 1 first.
        generator: Draws the images of the bootstrap.
        iou: Least overlap, over 0 and up to 1.
        interpolation: See `LEVELS`.
        resamples: Resamples of the bootstrap.
        level: Confidence of the intervals.

    Returns:
        By class the AP in 0..1, and an interval by bootstrap over images; NaN for a class without objects, which the
        mean leaves out.

    Raises:
        UserError: If an argument is impossible.
    """
    if "mean" in categories:
        raise UserError("a class is called 'mean', which is what the mean over classes is called: rename it")
    outcomes = {name: match(detections, targets, label, iou) for label, name in enumerate(categories, 1)}
    return _intervals(outcomes, generator, interpolation, resamples, level, mean=True)


def average_precision(outcome: Outcome, interpolation: str = "101") -> float:
    """AP in 0..1; NaN if there was nothing to find.

    Detections of equal scores come together or not at all, so that their order makes no difference.
    """
    return float(_precisions(outcome, torch.ones(1, len(outcome.positives)), interpolation))


def match(detections: Sequence[Fields], targets: Sequence[Fields], label: int, iou: float = 0.5) -> Outcome:
    """Which detections of a class found an object; `kitti_ap` says how. Those that don't count are left out.

    Args:
        detections: Of each image.
        targets: Of each image; see the module.
        label: The class.
        iou: Least overlap, over 0 and up to 1.

    Raises:
        UserError: If the overlap is impossible, or there are more or fewer detections than targets.
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
    return Outcome(torch.cat(scores), torch.cat(hits), torch.cat(image), torch.tensor(positives))


def overlaps(boxes: Float[Tensor, "m 4"], others: Float[Tensor, "n 4"], of_first: bool = False) -> Float[Tensor, "m n"]:
    """Intersection over union of boxes x0, y0, x1, y1, or over the area of the first alone; 0 where that is 0."""
    boxes, others = boxes.double(), others.double()
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area, other = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (boxes, others))
    whole = area[:, None].expand_as(both) if of_first else area[:, None] + other - both
    return both / whole.where(whole > 0, torch.ones_like(whole))


def occlusion_level(visibility: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """KITTI's levels for rendered objects: 0 from 80 % visible on, 1 from 50 % on, 2 below.

    KITTI's annotators judged by eye; these shares make synthetic test sets be read by the same protocol.
    """
    return (visibility < 0.8).long() + (visibility < 0.5).long()


def _check(detections: Sequence[Fields], targets: Sequence[Fields], iou: float) -> None:
    if not 0 < iou <= 1:
        raise UserError(f"iou is {iou}: give the least overlap of a detection and its object, over 0 and up to 1")
    if len(detections) != len(targets):
        raise UserError(
            f"there are detections of {len(detections)} images, but targets of {len(targets)}: pass both of each image"
        )
    if not targets:
        raise UserError("there are no images to measure on")


def _match(boxes: Float[Tensor, "m 4"], target: Fields, label: int, iou: float) -> tuple[Int[Tensor, " m"], int]:
    """For detections of one image, the best first: 1 found an object, 0 did not, -1 doesn't count; objects to find."""
    mine = target["labels"] == label
    ignored = target["ignore"][mine] if "ignore" in target else torch.zeros(int(mine.sum())).bool()
    table = overlaps(boxes, target["boxes"][mine]).numpy().copy()
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
        inside = overlaps(boxes, target["regions"][there], of_first=True).numpy()
        outcome[(outcome == 0) & (inside >= iou).any(1)] = -1
    return torch.from_numpy(outcome), int((~ignored).sum())


def _high_enough(detections: Fields, target: Fields, difficulty: Difficulty) -> Fields:
    """The detections that are not too low."""
    boxes = detections["boxes"]
    kept = boxes[:, 3] - boxes[:, 1] >= difficulty.height * float(target["scale"])
    return {name: detections[name][kept] for name in ("boxes", "scores", "labels")}


def _harder_ignored(target: Fields, difficulty: Difficulty) -> Fields:
    """The target with all that is harder ignored."""
    harder = (
        (target["height"] <= difficulty.height)
        | (target["occlusion"] > difficulty.occlusion)
        | (target["truncation"] > difficulty.truncation)
    )
    return {**target, "ignore": target["ignore"] | harder if "ignore" in target else harder}


def _intervals(
    outcomes: Mapping[str, Outcome],
    generator: torch.Generator,
    interpolation: str,
    resamples: int,
    level: float,
    mean: bool = False,
) -> dict[str, Interval]:
    """AP of each outcome, with percentiles over sets of images drawn with replacement, the same for all outcomes."""
    if interpolation not in LEVELS:
        raise UserError(f"there is no interpolation {interpolation!r}. {suggest(interpolation, LEVELS)}")
    if resamples < 1 or not 0 < level < 1:
        raise UserError(
            f"resamples is {resamples} and level {level}: give at least 1 resample and a level between 0 and 1"
        )
    if not outcomes:
        raise UserError("there are no classes to measure: name at least one")
    n = len(next(iter(outcomes.values())).positives)
    rows = []
    for times in _drawn(n, resamples, generator, max(len(o.scores) for o in outcomes.values())):
        rows.append(torch.stack([_precisions(o, times, interpolation) for o in outcomes.values()]))
    table = dict(zip(outcomes, torch.cat(rows, 1), strict=True))  # of each, the value of all images first
    if mean:
        table = {"mean": torch.stack(list(table.values())).nanmean(0)} | table
    return {name: _percentiles(values, level) for name, values in table.items()}


def _drawn(n: int, resamples: int, generator: torch.Generator, width: int) -> Iterator[Float[Tensor, "r n"]]:
    """How often each of n images is in a set, a few sets at a time: all images once, and then resamples."""
    yield torch.ones(1, n)
    step = max(1, CHUNK // max(n, width))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        places = torch.randint(n, (size, n), generator=generator, device=generator.device).cpu()
        yield torch.zeros(size, n).scatter_add_(1, places, torch.ones(size, n))


def _precisions(outcome: Outcome, times: Float[Tensor, "r n"], interpolation: str) -> Float[Tensor, " r"]:
    """AP of sets of images, which hold each image so many times; NaN for those with nothing to find."""
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


def _percentiles(values: Float[Tensor, " r"], level: float) -> Interval:
    value, others = values[0], values[1:]
    low, high = others.nanquantile((1 - level) / 2), others.nanquantile((1 + level) / 2)
    return Interval(float(value), float(low.fmin(value)), float(high.fmax(value)))
