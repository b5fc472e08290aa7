"""Contracts of images: shape, range, and what they depend on."""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from ms2.contracts.base import Finding, NotCheckedError, call, place, sample_scenes, span
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World

NUM_IMAGES = 8
"""Images that are checked."""
LABELS = ("boxes", "visible_boxes", "visibility")
"""Fields of a rendering with a row for each object, besides those that it takes from the scenes."""
GPU_TOLERANCE = 1e-4
"""Largest difference of equal images on a GPU, where sums are not always added up in one order; on a CPU 0."""


def images(world: World, draw: Generator) -> Iterator[Finding]:
    """Images have the declared shape, and finite pixels in 0..1."""
    scenes = sample_scenes(world, NUM_IMAGES, draw)
    for method in ("render", "render_labelled"):
        rendered = call(world.renderer, method, scenes)
        image = rendered if method == "render" else rendered.image
        yield from wrong_image(world, image, len(scenes), place(world.renderer, method))


def wrong_image(world: World, image: Tensor, n: int, where: str) -> Iterator[Finding]:
    """Find a wrong shape, type or range of n images."""
    shape = (n, world.renderer.channels, *world.renderer.size)
    if tuple(image.shape) != shape or image.dtype != torch.float32:
        yield Finding(where, f"float32 of shape {list(shape)}", f"{image.dtype} of shape {list(image.shape)}")
    elif not bool(((image >= 0) & (image <= 1)).all()):
        yield Finding(where, "finite pixels in 0..1", span(image))


def same_image(world: World, draw: Generator) -> Iterator[Finding]:
    """`render` gives the image of `render_labelled`."""
    scenes = sample_scenes(world, NUM_IMAGES, draw)
    image = call(world.renderer, "render", scenes)
    if not equal(image, call(world.renderer, "render", scenes)):
        raise NotCheckedError(f"{place(world.renderer, 'render')} gives other images each time")
    yield from unlike(world, image, call(world.renderer, "render_labelled", scenes).image)


def unlike(world: World, image: Tensor, labelled: Tensor) -> Iterator[Finding]:
    """Find differences between the images of `render` and `render_labelled`."""
    if not equal(image, labelled):
        expected = f"the images of {place(world.renderer, 'render')}"
        yield Finding(place(world.renderer, "render_labelled"), expected, difference(image, labelled))


def deterministic(world: World, draw: Generator) -> Iterator[Finding]:
    """Equal seeds give equal scenes and images, other seeds other ones."""
    state = draw.get_state()
    first = sample_scenes(world, NUM_IMAGES, draw)
    other = sample_scenes(world, NUM_IMAGES, draw)
    draw.set_state(state)
    again = sample_scenes(world, NUM_IMAGES, draw)
    if not torch.equal(first.classes, again.classes) or not torch.equal(first.parents, again.parents):
        where = place(world.structure_prior, "sample")
        yield Finding(where, "equal structures for generators of one seed", "other ones: draw from the generator alone")
        return
    changed = [name for name, values in _values(first).items() if not torch.equal(values, _values(again)[name])]
    if changed:
        where = place(world.parameter_prior, "sample")
        found = f"other values of {', '.join(changed)}: draw from the generator alone"
        yield Finding(where, "equal attributes for generators of one seed", found)
        return
    image = call(world.renderer, "render", first)
    yield from not_repeated(world, first, image)
    if _differ(first, other) and equal(image, call(world.renderer, "render", other)):
        yield Finding(place(world.renderer, "render"), f"other images for {NUM_IMAGES} other scenes", "the same ones")


def _differ(first: SceneBatch, other: SceneBatch) -> bool:
    """Return whether scenes hold objects, and not the same ones: a prior may leave nothing to chance."""
    pairs = zip(_values(first).values(), _values(other).values(), strict=True)
    same = torch.equal(first.classes, other.classes) and all(torch.equal(a, b) for a, b in pairs)
    return bool(first.mask.any()) and not same


def not_repeated(world: World, scenes: SceneBatch, image: Tensor) -> Iterator[Finding]:
    """Find differences between images of the same scenes."""
    again = call(world.renderer, "render", scenes)
    if not equal(image, again):
        yield Finding(place(world.renderer, "render"), "the same images for the same scenes", difference(image, again))


def _values(scenes: SceneBatch) -> dict[str, Tensor]:
    """Return what is drawn for objects, and for scenes as a whole."""
    used = {name: torch.where(scenes.mask, values, 0) for name, values in scenes.attributes.items()}
    return used | scenes.environment


def scenes_unchanged(world: World, draw: Generator) -> Iterator[Finding]:
    """Rendering leaves the scenes as they are."""
    scenes = sample_scenes(world, 4, draw)
    for method in ("render", "render_labelled"):
        before = [values.clone() for values in _tensors(scenes)]
        names = set(scenes.attributes), set(scenes.environment)
        call(world.renderer, method, scenes)
        same = names == (set(scenes.attributes), set(scenes.environment)) and all(
            torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, _tensors(scenes), strict=True)
        )
        if not same:
            yield Finding(
                place(world.renderer, method), "scenes as they were", "changed classes, parents or attributes"
            )


def _tensors(scenes: SceneBatch) -> list[Tensor]:
    return [scenes.classes, scenes.parents, *scenes.attributes.values(), *scenes.environment.values()]


def batch_independent(world: World, draw: Generator) -> Iterator[Finding]:
    """A scene's image and labels do not depend on the other scenes of its batch."""
    scenes = sample_scenes(world, NUM_IMAGES, draw)
    labels = call(world.renderer, "render_labelled", scenes)
    for i, scene in enumerate(each(scenes)):
        image = call(world.renderer, "render", scene)
        alone = call(world.renderer, "render_labelled", scene)
        if not torch.allclose(image[0], labels.image[i], atol=1e-6, rtol=0):
            expected, found = f"scene {i}'s image as in its batch", difference(image[0], labels.image[i])
            yield Finding(place(world.renderer, "render"), expected, found)
            return
        wrong = _other_labels(alone, labels, i, scene.classes.shape[1])
        if wrong:
            where = place(world.renderer, "render_labelled")
            yield Finding(where, f"scene {i}'s labels as in its batch", f"other {', '.join(wrong)}")
            return


def _other_labels(alone: Rendering, labels: Rendering, i: int, used: int) -> list[str]:
    wrong = [] if torch.equal(alone.instances[0], labels.instances[i]) else ["instances"]
    pairs = {name: (getattr(alone, name)[0], getattr(labels, name)[i, :used]) for name in LABELS}
    return wrong + [name for name, (a, b) in pairs.items() if not torch.allclose(a, b, rtol=1.3e-6, atol=1e-5)]


def each(scenes: SceneBatch) -> list[SceneBatch]:
    """Return the scenes one by one, each without the unused entries after its objects."""
    found = []
    for i in range(len(scenes)):
        used = max(1, int(scenes.mask[i].sum()))
        attributes = {name: values[i : i + 1, :used] for name, values in scenes.attributes.items()}
        environment = {name: values[i : i + 1] for name, values in scenes.environment.items()}
        structure = (scenes.classes[i : i + 1, :used], scenes.parents[i : i + 1, :used])
        found.append(SceneBatch(*structure, attributes, environment))
    return found


def unused_not_read(world: World, draw: Generator) -> Iterator[Finding]:
    """Attributes of unused entries have no influence on images."""
    scenes = sample_scenes(world, NUM_IMAGES, draw)
    noise = {name: torch.where(scenes.mask, values, torch.nan) for name, values in scenes.attributes.items()}
    image = call(world.renderer, "render", scenes)
    without = call(world.renderer, "render", scenes.with_attributes(**noise))
    if not equal(without, image):
        expected = "the same images whatever attributes unused entries (class -1) have"
        yield Finding(place(world.renderer, "render"), expected, difference(without, image))


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether images are equal, on a GPU but for rounding."""
    if a.device.type == "cpu" or a.shape != b.shape:
        return torch.equal(a, b)
    return torch.allclose(a, b, atol=GPU_TOLERANCE, rtol=0)


def difference(a: Tensor, b: Tensor) -> str:
    """Describe how images differ."""
    if a.shape != b.shape:
        return f"shapes {list(a.shape)} and {list(b.shape)}"
    gap = (a - b).detach().abs().nan_to_num(nan=torch.inf)
    return f"pixels that differ by up to {float(gap.max()):.3g}, in {float((gap > 0).float().mean()):.1%} of them"
