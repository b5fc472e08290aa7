"""Probe: how accurately, and with what bias, an extractor's features count; learning can get no better than that."""

import warnings

import torch

from ms2.features import Reading, TrainedExtractor
from ms2.priors import ParameterPrior
from ms2.scene import scenes_of
from ms2.seeding import generator
from ms2.world import World

MOST_BIAS = 0.25
"""Mean error, in objects, of the count of images with a given number of them, above which the probe warns."""


@torch.no_grad()
def probe(
    features: TrainedExtractor, world: World, layouts: dict[str, ParameterPrior], images: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Compare what the extractor reads off images with what is in them, over the whole range of the prior.

    Args:
        features: The extractor.
        world: Whose structure prior and renderer make the images.
        layouts: Parameter priors by name; besides the world's own, one unlike it shows whether the features
            read the structure or the layout.
        images: Images per layout.
        seed: Seed of the images.

    Returns:
        By layout, as ``probe/<layout>/<what>``: accuracy of presence, mean absolute error per class, accuracy
        of the total rounded, and the total's mean error for images with n objects (``bias_n``).
    """
    found: dict[str, float] = {}
    device = next(features.parameters()).device
    for name, parameters in layouts.items():
        draw = generator(seed, "probe", name, device=device)
        scenes = parameters.sample(scenes_of(world.grammar, world.prior.sample(world.grammar, images, draw)), draw)
        parts = [features.read(world.renderer.render(scenes[i : i + 128])) for i in range(0, images, 128)]
        read = Reading(*(None if p[0] is None else torch.cat(p) for p in zip(*parts, strict=True)))
        row = _compare(read, scenes.counts(len(world.grammar.classes)))
        _warn(name, row)
        found |= {f"probe/{name}/{key}": value for key, value in row.items()}
    return found


def _compare(read: Reading, truth: torch.Tensor) -> dict[str, float]:
    row: dict[str, float] = {}
    if read.presence is not None:
        row["presence_accuracy"] = float((read.presence == (truth > 0)).float().mean())
    if read.counts is not None:
        row["class_error"] = float((read.counts - truth).abs().mean())
    if read.total is not None:
        total = truth.sum(1)
        row["count_accuracy"] = float((read.total.round() == total).float().mean())
        error = read.total - total
        row |= {f"bias_{n}": float(error[total == n].mean()) for n in sorted(set(total.tolist()))}
    return row


def _warn(layout: str, row: dict[str, float]) -> None:
    off = {key[5:]: value for key, value in row.items() if key.startswith("bias_") and abs(value) > MOST_BIAS}
    if off:
        worst = ", ".join(f"{n}: {value:+.2f}" for n, value in off.items())
        warnings.warn(
            f"the features miscount on the layout {layout!r} (number of objects: mean error; {worst}). The learned "
            "distribution moves by that much. Train the extractor longer or wider, or on a larger canvas.",
            stacklevel=3,
        )
