"""Contracts of derivatives of images, and of the centres of objects."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ms2.contracts.base import Finding, call, place, sample_scenes
from ms2.contracts.parameters import owned
from ms2.scene.attributes import ENVIRONMENT, Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World

NUM_MOVED = 24
"""Scenes whose objects are moved."""
STEP = 1e-4
"""Step of finite differences, as a fraction of an attribute's bounds: a small part of a pixel.

Of scenes with 28 cars that move by 6e-3 m, 0.04 to 0.3 have a wrong slope; by 3e-2 m, 0.2 to 0.5 have.
"""
MAX_ERROR, MIN_FRACTION = 0.35, 0.5
"""Largest relative error of a slope, and the fraction of scenes that keep to it.

Where one object begins to hide another there is a kink: in scenes of many objects often within a small step.
"""
ROUNDING = 0.02
"""Error of a slope that always may be, as a fraction of the largest: small slopes are differences of rounded sums."""


def gradients(world: World, draw: Generator) -> Iterator[Finding]:
    """Images have the derivatives that the renderer declares, compared with finite differences."""
    where = place(world.renderer, "render")
    for attribute in (*world.renderer.attributes, *world.renderer.environment):
        if attribute.name not in world.renderer.differentiable:
            continue
        scenes = sample_scenes(world, NUM_MOVED, draw)
        if not bool(scenes.mask.any()):
            continue
        slope, measured, stray = slopes(world, scenes, attribute, draw)
        if slope is None:
            yield Finding(where, f"a derivative with respect to {attribute.name!r}", "none: the graph is cut")
        elif not bool(slope.isfinite().all()):
            yield Finding(where, f"a finite derivative with respect to {attribute.name!r}", "NaN or infinity")
        elif (wrong := wrong_fraction(slope, measured)) > 1 - MIN_FRACTION:
            expected = f"the derivative with respect to {attribute.name!r} that finite differences show"
            yield Finding(where, expected, f"another one in {wrong:.0%} of {NUM_MOVED} scenes")
        if stray:
            yield Finding(where, f"no derivative with respect to {attribute.name!r} of unused entries", "one")


def wrong_fraction(slope: Tensor, measured: Tensor) -> float:
    """Compute the fraction of scenes whose slope is not the measured one."""
    allowed = MAX_ERROR * measured.abs() + ROUNDING * measured.abs().max()
    return float(((slope - measured).abs() > allowed).double().mean())


def slopes(
    world: World, scenes: SceneBatch, attribute: Attribute, draw: Generator
) -> tuple[Tensor | None, Tensor, bool]:
    """Compute the slopes of a smoothly weighted sum of pixels along a random direction, by scene.

    Objects of which nothing may be learned stay where they are, if something may be learned at all.

    Returns:
        Slopes by automatic differentiation, None if there is no graph; by central differences; and whether unused
        entries have a derivative.
    """
    whole = attribute in world.renderer.environment
    value = (scenes.environment if whole else scenes.attributes)[attribute.name]
    ahead = torch.randn(value.shape, generator=draw, device=draw.device)
    moved = [owned(world, owner, scenes) for owner in world.parameter_prior.mutable if owner != ENVIRONMENT]
    if moved and not whole:
        ahead = ahead * torch.stack(moved).any(0)
    small = torch.randn(len(scenes), world.renderer.channels, 4, 4, generator=draw, device=draw.device)
    weights = F.interpolate(small, world.renderer.size, mode="bicubic")

    def total(values: Tensor) -> Tensor:
        changed = {attribute.name: values}
        there = scenes.with_environment(**changed) if whole else scenes.with_attributes(**changed)
        image = call(world.renderer, "render", there)
        return (weights * image).double().sum((1, 2, 3))

    step = STEP * (attribute.high - attribute.low)
    with torch.no_grad():
        measured = (total(value + step * ahead) - total(value - step * ahead)) / (2 * step)
    inner = value.clone().requires_grad_()
    sums = total(inner).sum()
    if not sums.requires_grad:
        return None, measured, False
    gradient: Tensor | None = torch.autograd.grad(sums, inner, allow_unused=True)[0]
    if gradient is None:
        return None, measured, False
    stray = not whole and bool(gradient[~scenes.mask].any())
    return (gradient * ahead).double().reshape(len(scenes), -1).sum(1), measured, stray


def centres(world: World, draw: Generator) -> Iterator[Finding]:
    """Centres of objects, where the renderer has them, are finite, one for each object."""
    scenes = sample_scenes(world, NUM_MOVED, draw)
    found, where = call(world.renderer, "centres", scenes), place(world.renderer, "centres")
    if found is None:
        return
    shape = (*scenes.classes.shape, 2)
    if tuple(found.shape) != shape:
        yield Finding(where, f"a tensor of shape {list(shape)}", f"{list(found.shape)}")
    elif not bool(found[scenes.mask].isfinite().all()):
        yield Finding(where, "finite centres", "NaN or infinity")
