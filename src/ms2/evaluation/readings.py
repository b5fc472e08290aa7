"""What an extractor reads in target images whose truth is unknown or not read, beside generated ones.

Readings are estimates: they are wrong by as much as the extractor miscounts, and unlike distances to a known truth they
prove nothing about images that look unlike those it was trained on. Prior and learned model are therefore read by the
same extractor, not counted.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.seeding import generator
from ms2.features.base import CountingExtractor, FeatureExtractor
from ms2.metrics.base import round_fractions
from ms2.metrics.results import LEARNED, PRIOR, TARGET, HistogramResult, ReadingResult
from ms2.models.scene_model import ROWS, SceneModel
from ms2.targets.base import Target

BATCH_SIZE = 50
"""Images that are rendered and read together."""


class Readings(NamedTuple):
    """Readings of prior, learned model and target.

    Attributes:
        result: Means, and numbers of images.
        histograms: Distributions of the number of objects, and of their classes.
    """

    result: ReadingResult
    histograms: list[HistogramResult]


@torch.no_grad()
def read_images(
    features: FeatureExtractor | None, model: SceneModel, target: Target, num_images: int, seed: int
) -> Readings | None:
    """Count the objects of target images, and of as many generated ones, by an extractor.

    Args:
        features: The extractor, on the device of the learned models.
        model: The scene model.
        target: The target.
        num_images: Maximum number of images of each row.
        seed: Seed of the generated images.

    Returns:
        The readings; None where the extractor does not count.
    """
    if not isinstance(features, CountingExtractor):
        return None
    features.eval()
    device = features.device
    batches = target.batches(BATCH_SIZE, device, limit=num_images)
    real = _read(features, (pixels.to(device).float() / 255 for _, pixels in batches))
    if real is None:
        return None
    counts = {row: _read_generated(features, model, row, len(real), seed) for row in (PRIOR, LEARNED)} | {TARGET: real}
    return Readings(_summarise(counts, model.world.classes, target), list(_histograms(counts, model.world.classes)))


def _read(features: CountingExtractor, batches: Iterable[Float[Tensor, "b c h w"]]) -> Float[Tensor, "n c"] | None:
    """Count the objects of each class in images, NaN for classes left out; None if the extractor counts nothing."""
    parts = []
    for images in batches:
        counts = features.predict_counts(images).counts
        if counts is None:
            return None
        parts.append(counts.cpu())
    return torch.cat(parts)


def _read_generated(
    features: CountingExtractor, model: SceneModel, row: str, number: int, seed: int
) -> Float[Tensor, "n c"]:
    """Count the objects of each class in generated images."""
    draw = generator(seed, "readings", row, device=features.device)
    sizes = [min(BATCH_SIZE, number - i) for i in range(0, number, BATCH_SIZE)]
    found = _read(features, (model.images(size, draw, ROWS[row]) for size in sizes))
    assert found is not None, "it has counted the target's"
    return found


def _summarise(counts: dict[str, Float[Tensor, "_ c"]], classes: tuple[str, ...], target: Target) -> ReadingResult:
    means = {row: some.mean(0).tolist() for row, some in counts.items()}
    counted = [i for i, mean in enumerate(means[TARGET]) if not math.isnan(mean)]
    return ReadingResult(
        num_images=len(counts[TARGET]),
        num_target_images=target.num_images,
        objects={row: sum(some[i] for i in counted) for row, some in means.items()},
        classes={classes[i]: {row: some[i] for row, some in means.items()} for i in counted},
    )


def _histograms(counts: dict[str, Float[Tensor, "_ c"]], classes: tuple[str, ...]) -> Iterator[HistogramResult]:
    """Histograms of the rounded number of objects, and of the fraction of each class among all."""
    note = f"READ by the extractor in {len(counts[TARGET]):,} images"
    totals = {row: some.nan_to_num().sum(1).round().long() for row, some in counts.items()}
    bins = max(int(total.max()) for total in totals.values()) + 1
    shares = {row: total.bincount(minlength=bins) / len(total) for row, total in totals.items()}
    yield HistogramResult(
        "read_count",
        f"objects per image, {note}",
        [str(i) for i in range(bins)],
        {row: round_fractions(share.tolist()) for row, share in shares.items()},
    )
    sums = {row: some.nan_to_num().clamp(min=0).sum(0) for row, some in counts.items()}
    yield HistogramResult(
        "read_class",
        f"classes of objects, {note}",
        list(classes),
        {row: round_fractions((some / some.sum().clamp(min=1e-9)).tolist()) for row, some in sums.items()},
    )
