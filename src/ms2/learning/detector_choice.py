"""Choose from which score and height a detector's boxes count, by renders alone."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm

from ms2.core.seeding import generator
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.detector_errors import DetectorErrors, detector_errors, join_errors
from ms2.features.detection.height_recall import RecallCurve, fit_recall
from ms2.world import World

SCORES = tuple(n / 20 for n in range(6, 17))
"""Scores that are tried. Renders hold too little that looks like an object to show what lower ones cost: the least is
that from which YOLOX's authors show boxes."""
HEIGHTS = (8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 32.0, 40.0, 50.0, 64.0)
"""Heights in pixels that are tried, each a third of an octave above the one before."""
SATURATED = 0.85
"""Recall of objects just above the least height, relative to that of the heights at which it is best: below it, whether
an object is found depends on how sharply it is drawn, in which renders and photographs differ."""
F1_TOLERANCE = 0.01
"""F1 that is given up for a higher score: there is more in photographs that looks like an object than in renders."""
BAND = 1.6
"""Upper end of a band of heights over its lower end."""
MIN_OBJECTS = 30
"""Objects of a band of heights from which its recall is told."""
BATCH_SIZE = 16
"""Images that are rendered and read at once."""


class HeightTrial(NamedTuple):
    """What a least height would mean for one class.

    Attributes:
        height: The least height in pixels.
        score: The score with the best F1 of objects and boxes from this height on.
        recall: Recall of the objects from this height to the next but one, at this score.
        num_objects: Number of these objects.
    """

    height: float
    score: float
    recall: float
    num_objects: int


class ClassChoice(NamedTuple):
    """What is chosen for one class.

    Attributes:
        trials: The heights that were tried, those with too few objects left out.
        min_height: The smallest height at which recall is nearly that of the best, or the largest that was tried.
        min_score: Score with the best F1 from that height on.
        errors: Errors at that score and height.
        recall: Recall by height from that height on.
        false_boxes: Mean number of false boxes in an image, from that height on.
    """

    trials: Sequence[HeightTrial]
    min_height: float
    min_score: float
    errors: DetectorErrors
    recall: RecallCurve
    false_boxes: float


@torch.no_grad()
def render_errors(
    features: DetectorCounts,
    world: World,
    num_images: int,
    seed: int,
    alike: Collection[str] = (),
    device: torch.device | str = "cpu",
) -> dict[float, dict[str, DetectorErrors]]:
    """Compute a detector's errors in renders of a world's prior, by score and class.

    Args:
        features: The extractor.
        world: The world.
        num_images: Number of images.
        seed: Seed of the scenes.
        alike: Classes that renders may show alike, see `detector_errors`.
        device: Device of the images.
    """
    parts: dict[float, list[dict[str, DetectorErrors]]] = {score: [] for score in SCORES}
    sizes = [min(BATCH_SIZE, num_images - i) for i in range(0, num_images, BATCH_SIZE)]
    draw = generator(seed, "detector choice", device=device)
    for size in tqdm(sizes, "reading labelled images", leave=False, unit="batch"):
        labels = world.renderer.render_labelled(world.sample_prior(size, draw))
        found = features.detect(labels.image)
        for score, errors in parts.items():
            errors.append(detector_errors(features, found, labels, score, alike))
    return {score: join_errors(errors) for score, errors in parts.items()}


def choose(errors: Mapping[float, Mapping[str, DetectorErrors]], num_images: int) -> dict[str, ClassChoice]:
    """Choose the least height and the score of each class by the errors in renders.

    A class's height is the smallest at which its recall is nearly the best (`SATURATED`): what is read of larger
    objects does not depend on how sharply they are drawn. It is the largest that is tried where the class is too rare
    to tell. The score has the best F1 from that height on (`best_score`).

    Args:
        errors: Errors by score and class.
        num_images: Number of images in which they were made.
    """
    chosen = {}
    for name in next(iter(errors.values())):
        trials = [_try(errors, name, height) for height in HEIGHTS]
        trials = [one for one in trials if one.num_objects >= MIN_OBJECTS]
        min_height = _saturated(trials)
        score = best_score(errors, name, min_height)
        made = errors[score][name].at_least(min_height)
        curve, false_boxes = fit_recall(made.heights, made.found, min_height), len(made.false_heights) / num_images
        chosen[name] = ClassChoice(trials, min_height, score, made, curve, false_boxes)
    return chosen


def best_score(errors: Mapping[float, Mapping[str, DetectorErrors]], name: str, height: float) -> float:
    """Return the highest score whose F1, of objects and boxes from a height on, is nearly the best."""
    f1 = {score: by_class[name].at_least(height).f1 for score, by_class in errors.items()}
    best = max(f1.values())
    return max(score for score, value in f1.items() if value >= best - F1_TOLERANCE)


def _try(errors: Mapping[float, Mapping[str, DetectorErrors]], name: str, height: float) -> HeightTrial:
    score = best_score(errors, name, height)
    band = errors[score][name].below(BAND * height).at_least(height)
    return HeightTrial(height, score, band.recall, len(band.heights))


def _saturated(trials: Sequence[HeightTrial]) -> float:
    """Return the smallest height whose recall is nearly the best; the largest that is tried where nothing is found."""
    best = max((one.recall for one in trials), default=0.0)
    return next((one.height for one in trials if one.recall >= SATURATED * best > 0), HEIGHTS[-1])
