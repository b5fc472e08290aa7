"""Probe: accuracy and bias of an extractor's counts, which bound the accuracy of learning."""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.seeding import generator
from ms2.features.base import CountPrediction, TrainedExtractor
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World

MAX_BIAS = 0.25
"""Mean error in objects, of images with a given number of objects, above which the probe warns."""
MIN_IMAGES = 20
"""Images with a given number of objects that an estimate of the bias needs."""


@torch.no_grad()
def probe(
    features: TrainedExtractor,
    world: World,
    probe_priors: dict[str, ParameterPrior],
    images: int = 2000,
    seed: int = 0,
    structure_prior: StructurePrior | None = None,
) -> dict[str, float]:
    """Compare predicted with true counts of objects, over the whole range of the prior.

    Objects that are less visible than the extractor's ``least_visible`` are not counted.

    Args:
        features: The extractor.
        world: The world whose grammar and renderer make the images.
        probe_priors: Parameter priors by name; one unlike the world's own shows whether counts depend on where
            objects are.
        images: Images per parameter prior.
        seed: Seed of the images.
        structure_prior: Structure prior of the images, the world's by default; a wider one shows whether the
            extractor counts as many objects as the target may hold.

    Returns:
        By parameter prior, as ``probe/<name>/<what>``: ``presence_accuracy``, mean absolute error per class
        (``class_error``), accuracy of the rounded total (``count_accuracy``), mean error of the total for images with
        n objects (``bias_n``), and the mean error of each slot, such as ``car_1/bias_n``.
    """
    found: dict[str, float] = {}
    device = next(features.parameters()).device
    structure_prior = structure_prior or world.structure_prior
    for name, parameters in probe_priors.items():
        draw = generator(seed, "probe", name, device=device)
        scenes = parameters.sample(
            scenes_from_derivations(world.grammar, structure_prior.sample(world.grammar, images, draw)), draw
        )
        parts, visibility = [], []
        for i in range(0, images, 128):
            rendering = world.renderer.render_labelled(scenes[i : i + 128])
            parts.append(features.read(rendering.image))
            visibility.append(rendering.visibility)
        read = CountPrediction(*(None if p[0] is None else torch.cat(p) for p in zip(*parts, strict=True)))
        visible = torch.cat(visibility) >= features.least_visible
        seen = replace(scenes, classes=torch.where(visible, scenes.classes, -1))
        row = _compare(read, seen.counts(len(world.classes))) | _slots(features, read, scenes, visible)
        _warn(name, row)
        found |= {f"probe/{name}/{key}": value for key, value in row.items()}
    return found


def _compare(read: CountPrediction, truth: Int[Tensor, "n c"]) -> dict[str, float]:
    row: dict[str, float] = {}
    if read.presence is not None:
        row["presence_accuracy"] = float((read.presence == (truth > 0)).float().mean())
    if read.counts is not None:
        row["class_error"] = float((read.counts - truth).abs().nanmean())
    if read.total is not None and not bool(read.total.isnan().any()):
        total = truth.sum(1)
        row["count_accuracy"] = float((read.total.round() == total).float().mean())
        row |= _bias(read.total - total, total, least=1)
    return row


def _slots(
    features: TrainedExtractor, read: CountPrediction, scenes: SceneBatch, visible: Bool[Tensor, "n o"]
) -> dict[str, float]:
    if read.slots is None:
        return {}
    slots = features.slots.of(scenes.classes, scenes.parents)
    truth = features.slots.count(torch.where(visible, slots, -1))
    row: dict[str, float] = {}
    for name, number, true in zip(features.slots.names, read.slots.unbind(1), truth.unbind(1), strict=True):
        if not bool(number.isnan().any()):
            row |= {f"{name}/{key}": value for key, value in _bias(number - true, true, MIN_IMAGES).items()}
    return row


def _bias(error: Float[Tensor, " n"], true: Int[Tensor, " n"], least: int) -> dict[str, float]:
    """Compute the mean error of images with n objects, for each n with at least ``least`` images."""
    return {f"bias_{n}": float(error[true == n].mean()) for n, m in enumerate(true.bincount().tolist()) if m >= least}


def _warn(name: str, row: Mapping[str, float]) -> None:
    worst: dict[str, list[tuple[float, str]]] = {}
    for key, value in row.items():
        what, found, n = key.rpartition("bias_")
        if found and abs(value) > MAX_BIAS:
            worst.setdefault(what.strip("/") or "objects", []).append((value, n))
    if worst:
        listed = "; ".join(f"{what} {_in_words(errors)}" for what, errors in worst.items())
        warnings.warn(
            f"the features miscount on the parameter prior {name!r}: {listed}. The learned distribution will be biased "
            "by that much. Train the extractor longer or wider, or on a larger canvas.",
            stacklevel=3,
        )


def _in_words(errors: list[tuple[float, str]]) -> str:
    most, where = max(errors, key=lambda error: abs(error[0]))
    others = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"by {most:+.2f} where there are {where}{others}"
