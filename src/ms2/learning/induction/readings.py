"""Read unlabelled images as a table of objects: what an extractor sees of classes and places, without parents."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.seeding import generator
from ms2.features.base import FeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.features.places import read_places
from ms2.learning.induction.object_table import InductionError, ObjectTable
from ms2.targets.base import Target
from ms2.world import World

NUM_MEASURED = 200
"""Scenes of the prior by which boxes and positions of classes are measured."""
BATCH = 64
MIN_SPREAD = 1e-4
"""Spread of centres, as a fraction of the image, below which a class is always at one place."""


class Scale(NamedTuple):
    """How attributes x and y of a class follow from its centre on the image, a fraction: ``start + width * centre``.

    Attributes:
        start: Of x and of y.
        width: Of x and of y; 0 where all objects of the class are at one place.
    """

    start: tuple[float, float]
    width: tuple[float, float]


class Measures(NamedTuple):
    """What renders of a world's prior tell of its classes.

    Attributes:
        sizes: Typical width and height of the boxes of each class, as fractions of the image; 0 for a class that the
            prior never draws.
        scales: By class, how positions follow from centres; none without centres.
    """

    sizes: Float[Tensor, "c 2"]
    scales: Mapping[str, Scale]


def measure_classes(world: World, seed: int = 0) -> Measures:
    """Measure boxes and positions in labelled renders of the world's prior.

    Raises:
        InductionError: If the renderer does not tell where objects are.
    """
    scenes = world.sample_prior(NUM_MEASURED, generator(seed, "measures"))
    centres = world.renderer.centres(scenes)
    if centres is None or not {"x", "y"} <= scenes.attributes.keys():
        raise InductionError(
            f"{type(world.renderer).__name__} has no centres of objects, or its world no attributes x and y: places "
            "cannot be turned into attributes"
        )
    boxes = world.renderer.render_labelled(scenes).boxes
    height, width = world.renderer.size
    extent = (boxes[..., 2:] - boxes[..., :2]) / torch.tensor([width, height])
    sizes, scales = torch.zeros(len(world.classes), 2), {}
    for c, name in enumerate(world.classes):
        chosen = (scenes.classes == c) & (extent > 0).all(2)
        if bool(chosen.any()):
            sizes[c] = extent[chosen].median(0).values
            lines = [_line(centres[chosen][:, axis], scenes.attributes["xy"[axis]][chosen]) for axis in (0, 1)]
            scales[name] = Scale((lines[0][0], lines[1][0]), (lines[0][1], lines[1][1]))
    return Measures(sizes, scales)


def _line(centre: Float[Tensor, " n"], value: Float[Tensor, " n"]) -> tuple[float, float]:
    """Fit start and width of a line."""
    if float(centre.std(correction=0)) < MIN_SPREAD:
        return float(value.mean()), 0.0
    centre, value = centre.double(), value.double()
    width = ((centre - centre.mean()) * (value - value.mean())).sum() / (centre - centre.mean()).square().sum()
    return float(value.mean() - width * centre.mean()), float(width)


@torch.no_grad()
def read_target(features: FeatureExtractor, target: Target, world: World, measures: Measures) -> ObjectTable:
    """Read classes and places of objects off all images of a target.

    Args:
        features: The trained extractor, one that counts by place, without parents.
        target: The images.
        world: The world that the extractor was trained on.
        measures: Sizes of the boxes, which an extractor of centres does not see.

    Raises:
        InductionError: If the extractor tells no places.
    """
    if not isinstance(features, DenseCounts) or len(features.slots) != len(world.classes):
        raise InductionError(
            f"{type(features).__name__} tells no places of objects: the run's features must be DenseCounts, without "
            "parents_per_class, which a grammar has to be known for"
        )
    features.eval()
    height, width = world.renderer.size
    cells = (measures.sizes * torch.tensor([width, height]) / features.cell).long()
    windows = [(int(rows), int(columns)) for columns, rows in cells]
    parts, number = list[tuple[Tensor, Tensor, Tensor]](), 0
    for _, images in target.batches(BATCH):
        which, label, centre = _read(features, images.float() / 255, windows)
        parts.append((number + which, label, centre))
        number += len(images)
    scene, label, centre = (torch.cat(column) for column in zip(*parts, strict=True))
    half = measures.sizes[label] / 2
    boxes = torch.cat([centre - half, centre + half], 1).double()
    return ObjectTable(tuple(world.classes), number, scene, label, torch.full_like(scene, -1), boxes)


def _read(
    features: DenseCounts, images: Float[Tensor, "b c h w"], windows: list[tuple[int, int]]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, "n 2"]]:
    """Read image, class and centre of the objects of some images, in the order of the images."""
    numbers = features.expected_counts(images).round().long()
    used, places = read_places(features.density_maps(images), numbers, windows)
    which, label, _ = used.nonzero(as_tuple=True)
    return which, label, places[used]
