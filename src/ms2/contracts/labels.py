"""Contracts of labels: classes, boxes, masks and visibility belong to the image."""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from ms2.contracts.base import Finding, call, place, sample_scenes, span
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World

NUM_LABELLED = 24
"""Images whose labels are checked."""


def labels(world: World, draw: Generator) -> Iterator[Finding]:
    """Labels have the declared shapes, known classes, and finite values in range."""
    scenes = sample_scenes(world, NUM_LABELLED, draw)
    yield from wrong_labels(world, scenes, call(world.renderer, "render_labelled", scenes))


def wrong_labels(world: World, scenes: SceneBatch, labels: Rendering) -> Iterator[Finding]:
    """Find wrong shapes, classes and ranges of labels."""
    where = place(world.renderer, "render_labelled")
    shape, size = tuple(scenes.classes.shape), tuple(world.renderer.size)
    shapes = {
        "classes": shape,
        "parents": shape,
        "boxes": (*shape, 4),
        "corners": (*shape, 4, 2),
        "visible_boxes": (*shape, 4),
        "instances": (len(scenes), *size),
        "visibility": shape,
    }
    wrong = {name: tuple(getattr(labels, name).shape) for name in shapes}
    wrong = {name: found for name, found in wrong.items() if found != shapes[name]}
    for name, found in wrong.items():
        yield Finding(where, f"{name} of shape {list(shapes[name])}", f"{list(found)}")
    if wrong:
        return
    if not torch.equal(labels.classes, scenes.classes):
        expected = f"the scenes' classes, indices of {', '.join(world.classes)}"
        yield Finding(where, expected, f"others in {_rows(labels.classes != scenes.classes)}")
    if not torch.equal(labels.parents, scenes.parents):
        yield Finding(where, "the scenes' parents", f"others in {_rows(labels.parents != scenes.parents)}")
    for name in ("boxes", "corners", "visible_boxes", "visibility"):
        values = getattr(labels, name)
        if not bool(values.isfinite().all()):
            yield Finding(where, f"finite {name}", span(values))
        elif bool(values[~scenes.mask].any()):
            yield Finding(where, f"zeros as {name} of unused entries", span(values[~scenes.mask]))
    visibility = labels.visibility[scenes.mask]
    if not bool(((visibility >= 0) & (visibility <= 1)).all()):
        yield Finding(where, "visibility in 0..1", span(visibility))
    inside = (labels.instances >= -1) & (labels.instances < shape[1])
    used = scenes.mask.gather(1, labels.instances.clamp(0, shape[1] - 1).flatten(1)).view_as(inside)
    if not bool((inside & (used | (labels.instances < 0))).all()):
        yield Finding(where, "instances that are indices of the scene's objects, or -1", span(labels.instances))


def boxes(world: World, draw: Generator) -> Iterator[Finding]:
    """Boxes lie on the image and hold the pixels of their objects; those of the visible part fit tightly."""
    scenes = sample_scenes(world, NUM_LABELLED, draw)
    yield from wrong_boxes(world, scenes, call(world.renderer, "render_labelled", scenes))


def wrong_boxes(world: World, scenes: SceneBatch, labels: Rendering) -> Iterator[Finding]:
    """Find the first wrong box of each kind, compared with the instances.

    Where boxes of whole objects are finer than pixels, visible pixels reach out of them by less than one, and what
    fills less than half of every pixel belongs to none.
    """
    where, (height, width) = place(world.renderer, "render_labelled"), world.renderer.size
    on_image = torch.tensor([width, height, width, height], device=labels.boxes.device)
    for name in ("boxes", "visible_boxes"):
        box = getattr(labels, name)[scenes.mask]
        outside = ((box < 0) | (box > on_image)).any(1) | (box[:, :2] > box[:, 2:]).any(1)
        if bool(outside.any()):
            expected = f"{name} x0, y0, x1, y1 with 0 <= x0 <= x1 <= {width} and 0 <= y0 <= y1 <= {height}"
            yield Finding(where, expected, f"{_short(box[outside][0])}, and {int(outside.sum()) - 1} more")
    finer = not torch.equal(labels.boxes, labels.boxes.round())
    tight, area = mask_boxes(labels.instances, scenes.classes.shape[1])
    seen = area > 0
    whole = torch.where(seen, _excess(labels.boxes, labels.visible_boxes), 0.0)
    faults = {
        "visible_boxes around the visible pixels": (labels.visible_boxes != tight).any(2),
        "boxes that hold the visible pixels": whole > float(finer),
        "a visibility above 0 where an object has pixels": seen & (labels.visibility <= 0),
        "a visibility of 0 where an object has no pixels": ~seen & (labels.visibility > 0) & (not finer),
    }
    for expected, wrong in faults.items():
        wrong = wrong & scenes.mask
        if bool(wrong.any()):
            i, j = wrong.nonzero()[0].tolist()
            found = f"object {j} of image {i}: box {_short(labels.boxes[i, j])}, visible box "
            found += f"{_short(labels.visible_boxes[i, j])}, visibility {float(labels.visibility[i, j]):.3g}, "
            found += f"{int(area[i, j])} pixels"
            if area[i, j]:
                found += f" in {_short(tight[i, j])}"
            yield Finding(where, expected, f"{found}; {int(wrong.sum()) - 1} more")


def mask_boxes(instances: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Compute the box around the pixels of each object, zeros where it has none, and their number.

    Args:
        instances: Index of the object at each pixel, ``[b h w]``; -1 for none.
        n: Number of objects.
    """
    b, h, w = instances.shape
    index = (instances + torch.arange(b, device=instances.device)[:, None, None] * n)[instances >= 0]
    y, x = (torch.arange(size, device=instances.device) for size in (h, w))
    rows, columns = (grid.expand(b, h, w)[instances >= 0] for grid in (y[:, None], x))
    area = torch.bincount(index, minlength=b * n)
    low, high = (torch.full((b * n,), end, device=instances.device) for end in (max(h, w), -1))
    ends = [
        start.scatter_reduce(0, index, values, kind)
        for start, kind in ((low, "amin"), (high, "amax"))
        for values in (columns, rows)
    ]
    box = torch.stack([ends[0], ends[1], ends[2] + 1, ends[3] + 1], 1)
    box = torch.where(area[:, None] > 0, box, 0).float()
    return box.view(b, n, 4), area.view(b, n)


def _excess(outer: Tensor, inner: Tensor) -> Tensor:
    """By how much inner boxes reach out of outer ones."""
    low, high = outer[..., :2] - inner[..., :2], inner[..., 2:] - outer[..., 2:]
    return torch.cat([low, high], -1).amax(-1)


def _rows(wrong: Tensor) -> str:
    return f"{int(wrong.any(1).sum())} of {len(wrong)} scenes"


def _short(box: Tensor) -> list[float]:
    return [round(v, 2) for v in box.tolist()]
