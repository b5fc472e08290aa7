"""Measure the accuracy and bias of an extractor's counts, which limit what can be learned."""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.seeding import generator
from ms2.features.base import CountPrediction, TrainedExtractor
from ms2.metrics.results import ProbeResult
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World

MAX_BIAS = 0.25
"""Mean error of a predicted number of objects, over images of equal true number, beyond which to warn."""
MIN_IMAGES = 20
"""Fewer images than this tell too little of a bias."""


@torch.no_grad()
def probe(
    features: TrainedExtractor,
    world: World,
    parameter_priors: Mapping[str, ParameterPrior],
    num_images: int = 2000,
    seed: int = 0,
    structure_prior: StructurePrior | None = None,
) -> dict[str, ProbeResult]:
    """Compare the counts that an extractor predicts for rendered images with the true ones, by parameter prior.

    Objects of which too little is visible to be counted are left out.

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
    device = next(features.parameters()).device
    structure_prior = structure_prior or world.structure_prior
    for name, parameters in parameter_priors.items():
        draw = generator(seed, "probe", name, device=device)
        rules = structure_prior.sample(world.grammar, num_images, draw)
        scenes = parameters.sample(scenes_from_derivations(world.grammar, rules), draw)
        parts, visibility = [], []
        for i in range(0, num_images, 128):
            rendering = world.renderer.render_labelled(scenes[i : i + 128])
            parts.append(features.predict_counts(rendering.image))
            visibility.append(rendering.visibility)
        predicted = CountPrediction(*(None if p[0] is None else torch.cat(p) for p in zip(*parts, strict=True)))
        visible = torch.cat(visibility) >= features.min_visibility
        seen = replace(scenes, classes=torch.where(visible, scenes.classes, -1))
        result = _compare(predicted, seen.counts(len(world.classes)))
        found[name] = replace(result, slot_errors=_slot_errors(features, predicted, scenes, visible))
        _warn(name, found[name])
    return found


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
    features: TrainedExtractor, predicted: CountPrediction, scenes: SceneBatch, visible: Bool[Tensor, "n o"]
) -> dict[str, dict[int, float]]:
    if predicted.slots is None:
        return {}
    slots = features.slots.assign(scenes.classes, scenes.parents)
    truth = features.slots.count_assigned(torch.where(visible, slots, -1))
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
