"""Measure the accuracy and bias of an extractor's counts, which limit what can be learned."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from tqdm import tqdm

from ms2.core.seeding import generator
from ms2.features.base import CountingExtractor, CountPrediction, count_classes
from ms2.features.channel import ReadingChannel
from ms2.learning.drawn_ahead import DrawnAhead, used_entries
from ms2.metrics.results import ProbeResult, ReadingAccuracy
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import SceneBatch
from ms2.world import World

MAX_BIAS = 0.25
"""Mean error of a predicted number of objects, over images of equal true number, beyond which to warn."""
MIN_IMAGES = 20
"""Fewer images than this tell too little of a bias."""
BATCH_SIZE = 128
"""Images that are rendered and counted at once."""


DrawScenes = Callable[[int, Generator], SceneBatch]
"""Draws a number of scenes with a generator, on its device."""


class Probed(NamedTuple):
    """What is predicted in images, and what they show.

    Attributes:
        predicted: Predicted presence and numbers.
        counts: Number of objects of each class that are visible.
        slots: Number of those in each slot; None where the extractor has none.
        all_slots: Number of objects in each slot, visible or not.
    """

    predicted: CountPrediction
    counts: Int[Tensor, "n c"]
    slots: Int[Tensor, "n s"] | None
    all_slots: Int[Tensor, "n s"] | None


@torch.no_grad()
def probe(
    features: CountingExtractor,
    world: World,
    parameter_priors: Mapping[str, ParameterPrior],
    num_images: int = 2000,
    seed: int = 0,
    structure_prior: StructurePrior | None = None,
) -> dict[str, ProbeResult]:
    """Compare the counts that an extractor predicts for rendered images with the true ones, by parameter prior.

    Objects of which too little is visible to be counted are left out. On the images of the first parameter prior the
    extractor's channel is measured too, see `ReadingChannel`.

    Args:
        features: The extractor.
        world: Grammar and renderer of the images.
        parameter_priors: Parameter priors by name; besides the world's own, one unlike it shows whether the features
            depend on structure alone.
        num_images: Images of each prior.
        seed: Seed of the images.
        structure_prior: Prior of their structure, the world's by default; a wider one shows whether counts are right
            beyond the range of the world's prior, as the target may need.
    """
    found: dict[str, ProbeResult] = {}
    structure_prior = structure_prior or world.structure_prior
    for name, parameters in parameter_priors.items():
        drawn = World(world.grammar, structure_prior, parameters, world.renderer)
        probed = _predict(features, drawn, drawn.sample_prior, num_images, (seed, "probe", name))
        result = _compare(probed.predicted, probed.counts)
        slot_errors = _slot_errors(features, probed.predicted, probed.slots)
        readings = (
            {} if found or features.channel is None else _measure(features.channel, probed, (seed, "probe", name))
        )
        found[name] = replace(result, slot_errors=slot_errors, readings=readings)
        _warn(name, found[name])
    return found


@torch.no_grad()
def measure_channel(
    features: CountingExtractor,
    world: World,
    draw: DrawScenes,
    num_images: int,
    keys: tuple[int | str, ...],
    judged: bool = True,
) -> dict[str, ReadingAccuracy]:
    """Measure an extractor's channel on new images, and return its accuracy.

    Args:
        features: The extractor, which has a channel.
        world: Its renderer renders the images.
        draw: Draws their scenes.
        num_images: Number of images.
        keys: Keys of the scenes' generators.
        judged: Whether the quality of readings is judged by these images, see `ReadingChannel.measure`.
    """
    assert features.channel is not None
    return _measure(features.channel, _predict(features, world, draw, num_images, keys), keys, judged)


def _measure(
    channel: ReadingChannel, probed: Probed, keys: tuple[int | str, ...], judged: bool = True
) -> dict[str, ReadingAccuracy]:
    assert probed.predicted.slots is not None and probed.slots is not None and probed.all_slots is not None
    readings, seen = channel.sums(probed.predicted.slots), channel.sums(probed.slots)
    draw = generator(*keys, "channel", device=readings.device)
    channel.measure(readings, seen, channel.sums(probed.all_slots), draw, judged)
    error = readings - seen
    correlation = torch.stack([torch.corrcoef(pair)[0, 1] for pair in torch.stack([readings, seen.float()]).unbind(2)])
    correlation = correlation.nan_to_num()  # of what does not vary, such as the readings of a class that has none
    columns = {
        "bias": error.mean(0),
        "deviation": error.std(0, correction=0),
        "correlation": correlation,
        "information": channel.information(visible=True),
        "entropy": channel.entropy(visible=True),
        "structure_information": channel.information(),
        "structure_entropy": channel.entropy(),
    }
    values = {name: column.tolist() for name, column in columns.items()}
    quality = channel.quality()
    return {
        name: ReadingAccuracy(**{key: column[i] for key, column in values.items()}, quality=quality[i])
        for i, name in enumerate(channel.names)
    }


READING_COLUMNS = ("bias", "deviation", "correlation", "nats of visible", "nats of structure")
"""Titles of `reading_cells`."""


def shown(readings: Mapping[str, ReadingAccuracy]) -> dict[str, ReadingAccuracy]:
    """Return the readings of what images show: a scene's kind, for example, is counted but never seen."""
    return {name: one for name, one in readings.items() if one.entropy > 0}


def reading_cells(one: ReadingAccuracy) -> tuple[str, ...]:
    """Write how a number is read, for people: errors in objects, and information in nats."""
    return (
        f"{one.bias:+.2f}",
        f"{one.deviation:.2f}",
        f"{one.correlation:.2f}",
        f"{one.information:.2f} of {one.entropy:.2f}",
        f"{one.structure_information:.2f} of {one.structure_entropy:.2f}",
    )


def describe_readings(readings: Mapping[str, ReadingAccuracy]) -> str:
    """Write a table of what is read, for people: of each number, errors in objects and information in nats."""
    rows: list[tuple[str, ...]] = [("read of", *READING_COLUMNS, "")]
    rows += [(name.removeprefix("count_"), *reading_cells(one), one.quality) for name, one in shown(readings).items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _predict(
    features: CountingExtractor, world: World, draw: DrawScenes, num_images: int, keys: tuple[int | str, ...]
) -> Probed:
    """Predict the counts in images of scenes, and count what is visible and what is there."""
    device = features.device
    ahead = DrawnAhead(draw, used_entries, BATCH_SIZE, -(-num_images // BATCH_SIZE), keys)
    errors = generator(*keys, "readings", device=device)
    parts, counts = list[CountPrediction](), list[Tensor]()
    slots, all_slots = list[Tensor](), list[Tensor]()
    for first in tqdm(range(0, num_images, BATCH_SIZE), "reading labelled images", leave=False, unit="batch"):
        scenes = ahead.step(first // BATCH_SIZE, device)[: num_images - first]
        rendering = features.render_labelled(world.renderer, scenes)
        visible = features.labelled(rendering)
        parts.append(features.predict_labelled(rendering, errors))
        counts.append(count_classes(torch.where(visible, scenes.classes, -1), len(world.classes)))
        if parts[-1].slots is not None:
            # before hidden objects are left out, since parents are numbered among all
            features.slots.check(scenes.classes, scenes.parents, visible)
            assigned = features.slots.assign(scenes.classes, scenes.parents)
            slots.append(features.slots.count_assigned(torch.where(visible, assigned, -1)))
            all_slots.append(features.slots.count_assigned(assigned))
    predicted = CountPrediction(*(None if p[0] is None else torch.cat(p) for p in zip(*parts, strict=True)))
    return Probed(predicted, torch.cat(counts), *(torch.cat(some) if some else None for some in (slots, all_slots)))


def _compare(predicted: CountPrediction, truth: Int[Tensor, "n c"]) -> ProbeResult:
    scores: dict[str, float] = {}
    count_error: dict[int, float] = {}
    if predicted.presence is not None:
        scores["presence_accuracy"] = float((predicted.presence == (truth > 0)).float().mean())
    if predicted.counts is not None:
        scores["class_error"] = float((predicted.counts - truth).abs().nanmean())
    if predicted.total is not None and not bool(predicted.total.isnan().any()):
        total = truth.sum(1)
        scores["count_accuracy"] = float((predicted.total.round() == total).float().mean())
        count_error = _mean_errors(predicted.total - total, total, min_images=1)
    return ProbeResult(scores, count_error)


def _slot_errors(
    features: CountingExtractor, predicted: CountPrediction, truth: Int[Tensor, "n s"] | None
) -> dict[str, dict[int, float]]:
    if predicted.slots is None or truth is None:
        return {}
    columns = zip(features.slots.names, predicted.slots.unbind(1), truth.unbind(1), strict=True)
    return {
        name: _mean_errors(number - true, true, MIN_IMAGES)
        for name, number, true in columns
        if not bool(number.isnan().any())
    }


def _mean_errors(error: Float[Tensor, " n"], true: Int[Tensor, " n"], min_images: int) -> dict[int, float]:
    """Mean error by the true number, where there are enough images."""
    return {n: float(error[true == n].mean()) for n, m in enumerate(true.bincount().tolist()) if m >= min_images}


def _warn(parameter_prior: str, result: ProbeResult) -> None:
    errors = {"objects": result.count_error, **result.slot_errors}
    biased = {name: {n: e for n, e in some.items() if abs(e) > MAX_BIAS} for name, some in errors.items()}
    listed = "; ".join(f"{name} {_worst(some)}" for name, some in biased.items() if some)
    if listed:
        warnings.warn(
            f"the features miscount images of the parameter prior {parameter_prior!r}: {listed}. The learned "
            "distribution is biased by as much. Train the extractor longer or wider, or on a larger canvas.",
            stacklevel=3,
        )


def _worst(errors: Mapping[int, float]) -> str:
    where = max(errors, key=lambda n: abs(errors[n]))
    others = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"by {errors[where]:+.2f} where there are {where}{others}"
