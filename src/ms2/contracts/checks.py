"""Check all contracts of a world, or in a second what a first batch shows."""

import math
from collections.abc import Iterator

import torch
from torch import Generator

from ms2.contracts import gradients, images, labels, parameters, structure
from ms2.contracts.base import BrokenPartError, Contract, Finding, Outcome, call, check, place, sample_scenes
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.features.base import CountError, CountingExtractor
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World

CONTRACTS: dict[str, Contract] = {
    contract.__name__: contract
    for contract in (
        structure.grammar,
        structure.derivations,
        parameters.objects,
        parameters.parts,
        parameters.attributes,
        parameters.mutable,
        parameters.derived,
        images.images,
        images.deterministic,
        images.same_image,
        images.scenes_unchanged,
        images.batch_independent,
        images.unused_not_read,
        labels.labels,
        labels.boxes,
        gradients.gradients,
        gradients.centres,
    )
}
"""What every world must keep to, by name, in an order in which each relies on those before."""
FIRST_SCENES, FIRST_PIXELS = 8, 250_000
"""Scenes of a first batch that are checked: with large images fewer, of so many pixels together, but at least two."""
NUM_COUNTED, NUM_RENDERED = 2000, 16
"""Scenes whose objects are counted, and those if they have to be rendered for it."""
SLACK = 1e-4
"""By how much attributes of a first batch may exceed bounds, as a fraction of these: learned ones are rounded."""


def check_world(world: World, seed: int = 0) -> Iterator[Outcome]:
    """Check all contracts, each with scenes that depend on seed and contract alone."""
    with torch.random.fork_rng(devices=[]):  # a part that draws from the global generator changes nothing elsewhere
        for name, contract in CONTRACTS.items():
            yield check(contract, world, generator(seed, "contracts", name))


# -- the first batch -----------------------------------------------------------------------------------


def num_first_scenes(world: World) -> int:
    """Return how many scenes of a first batch are checked."""
    return min(FIRST_SCENES, max(2, FIRST_PIXELS // math.prod(world.renderer.size)))


@torch.no_grad()
def check_first_scenes(world: World, scenes: SceneBatch, drawn_by: str = "") -> Rendering:
    """Check a few scenes, their images and labels, before much is made of more of them.

    Args:
        world: The world.
        scenes: The scenes.
        drawn_by: What drew their attributes; the world's parameter prior by default.

    Returns:
        The images and labels.

    Raises:
        UserError: If they break a contract.
    """
    try:
        _raise_first(parameters.wrong_parents(world, scenes))
        _raise_first(parameters.lacking(world, scenes))
        _raise_first(parameters.out_of_bounds(world, scenes, SLACK, drawn_by))
        image = call(world.renderer, "render", scenes)
        _raise_first(images.wrong_image(world, image, len(scenes), place(world.renderer, "render")))
        _raise_first(images.not_repeated(world, scenes, image))
        rendering: Rendering = call(world.renderer, "render_labelled", scenes)
        _raise_first(images.unlike(world, image, rendering.image))
        _raise_first(labels.wrong_labels(world, scenes, rendering))
        _raise_first(labels.wrong_boxes(world, scenes, rendering))
    except BrokenPartError as error:
        raise broken(error) from error
    return rendering


def check_first_batch(world: World, seed: int = 0, device: torch.device | str = "cpu") -> Rendering:
    """Check a few scenes of the priors, their images and labels.

    Returns:
        The images and labels.

    Raises:
        UserError: If they break a contract.
    """
    draw = generator(seed, "first batch", device=torch.device(device))
    try:
        _raise_first(structure.derivations(world, draw))
        scenes = sample_scenes(world, num_first_scenes(world), draw, renderable=False)
    except BrokenPartError as error:
        raise broken(error) from error
    return check_first_scenes(world, scenes)


def broken(error: BrokenPartError) -> UserError:
    """Return the error of a broken part, or the one that it raised itself for a person."""
    if isinstance(error.__cause__, UserError):
        return error.__cause__
    return UserError(
        f"a part of this world is broken. {error.finding}.\n"
        "Mend it; 'ms2 check WORLD', with a configuration or the world's name, checks all parts and draws labelled "
        "samples."
    )


def _raise_first(findings: Iterator[Finding]) -> None:
    for finding in findings:
        raise BrokenPartError(finding)


# -- features ------------------------------------------------------------------------------------------


def check_max_count(
    features: CountingExtractor,
    world: World,
    structure_prior: StructurePrior | None = None,
    parameter_prior: ParameterPrior | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Outcome:
    """Check that an extractor can count the objects of its training images.

    Args:
        features: The extractor.
        world: The world.
        structure_prior: Structure prior of the training images; the world's by default.
        parameter_prior: Parameter prior of the training images; the world's by default.
        seed: Seed of the scenes.
        device: Device of the scenes.
    """

    def max_count(world: World, draw: Generator) -> Iterator[Finding]:
        """The extractor's `max_count` has room for the objects of its training images."""
        # where only objects of which enough is visible are counted, images have to be rendered
        rendered = not features.labels_all
        scenes = sample_scenes(world, NUM_RENDERED if rendered else NUM_COUNTED, draw)
        seen = scenes.mask
        if rendered:
            seen = features.labelled(call(world.renderer, "render_labelled", scenes))
        try:
            features.check_numbers(scenes.classes, scenes.parents, seen)
        except CountError as error:
            yield Finding(place(features, "max_count"), "room for the objects of every scene", str(error))

    wide = World(
        world.grammar,
        structure_prior or world.structure_prior,
        parameter_prior or world.parameter_prior,
        world.renderer,
    )
    return check(max_count, wide, generator(seed, "contracts", "max_count", device=torch.device(device)))
