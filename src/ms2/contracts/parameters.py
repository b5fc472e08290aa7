"""Contracts of parameter priors, and of what they draw for the renderer."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from ms2.contracts.base import Finding, call, missing, place, sample_scenes, sample_structure, span, within
from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World

NUM_SCENES = 100
"""Scenes whose attributes are checked."""
SLACK = 1e-5
"""By how much what is computed from attributes may exceed bounds, as a fraction of these, from rounding."""


def parts(world: World, draw: Generator) -> Iterator[Finding]:
    """The parameter prior draws all attributes that the renderer reads."""
    yield from lacking(world, sample_scenes(world, 4, draw, renderable=False))


def lacking(world: World, scenes: SceneBatch) -> Iterator[Finding]:
    """Find attributes that the renderer reads and scenes lack."""
    prior, renderer = world.parameter_prior, world.renderer
    for name in missing(world, scenes):
        drawn = ", ".join([*scenes.attributes, *scenes.environment]) or "none"
        expected = f"the attribute {name!r}, which {place(renderer)} reads"
        found = f"{drawn}: {place(prior)} and {place(renderer)} may belong to different worlds"
        yield Finding(place(prior, "sample"), expected, found)


def objects(world: World, draw: Generator) -> Iterator[Finding]:
    """The parameter prior keeps the objects that the structure has, and adds none but scenery."""
    prior, of_grammar = world.parameter_prior, len(world.grammar.classes)
    structure = sample_structure(world, NUM_SCENES, draw)
    scenes, where = call(prior, "sample", structure, draw), place(prior, "sample")
    if bool((scenes.classes >= len(world.classes)).any()) or bool((scenes.classes < -1).any()):
        yield Finding(where, f"classes 0 .. {len(world.classes) - 1}, or -1", span(scenes.classes))
        return
    scenery = scenes.classes >= of_grammar
    if bool(scenery.any()) and not prior.scenery:
        yield Finding(place(prior, "scenery"), "the names of the classes it adds", "none")
    if prior.scenery and not bool(scenery.any()):
        yield Finding(where, f"scenery ({', '.join(prior.scenery)})", f"none in {NUM_SCENES} scenes")
    own = [row[mask].tolist() for row, mask in zip(scenes.classes, scenes.mask & ~scenery, strict=True)]
    given = [row[row >= 0].tolist() for row in structure.classes]
    changed = [i for i, (a, b) in enumerate(zip(own, given, strict=True)) if a != b]
    if changed:
        expected = f"the structure's objects in their order, of classes {given[changed[0]]}"
        yield Finding(where, expected, f"{own[changed[0]]} in scene {changed[0]}")
    yield from wrong_parents(world, scenes)


def wrong_parents(world: World, scenes: SceneBatch) -> Iterator[Finding]:
    """Find parents that are no objects."""
    parents, width = scenes.parents, scenes.classes.shape[1]
    known = (parents >= -1) & (parents < width)
    known &= (parents < 0) | scenes.mask.gather(1, parents.clamp(0, width - 1))
    if not bool(known[scenes.mask].all()):
        yield Finding(
            place(world.parameter_prior, "sample"),
            "parents that are objects of the scene, or -1",
            span(parents[scenes.mask]),
        )


def attributes(world: World, draw: Generator) -> Iterator[Finding]:
    """Attributes are finite and within the bounds that the renderer declares."""
    yield from out_of_bounds(world, sample_scenes(world, NUM_SCENES, draw))


def out_of_bounds(world: World, scenes: SceneBatch, slack: float = 0.0, where: str = "") -> Iterator[Finding]:
    """Find attributes of wrong shape, or beyond the renderer's bounds.

    Args:
        world: The world.
        scenes: Scenes with all attributes that the renderer reads.
        slack: By how much they may exceed the bounds, as a fraction of these.
        where: What drew the scenes; the parameter prior by default.
    """
    where, renderer = where or place(world.parameter_prior, "sample"), world.renderer
    for attribute in (*renderer.attributes, *renderer.environment):
        of_objects = attribute in renderer.attributes
        values = (scenes.attributes if of_objects else scenes.environment)[attribute.name]
        shape = tuple(scenes.classes.shape) if of_objects else (len(scenes),)
        if tuple(values.shape) != shape:
            yield Finding(where, f"{attribute.name!r} of shape {list(shape)}", f"{list(values.shape)}")
            continue
        used = values[scenes.mask] if of_objects else values
        if not within(used, attribute.low, attribute.high, slack):
            expected = f"{attribute.name!r} in {attribute.low:.6g} .. {attribute.high:.6g} ({place(renderer)}'s bounds)"
            yield Finding(where, expected, span(used))


# -- what may be learned -------------------------------------------------------------------------------


def mutable_of(world: World) -> Iterator[tuple[str, Attribute, Attribute | None]]:
    """Yield owner and attribute of all that may be learned, and what the renderer declares of it, if it reads it."""
    for owner, some in world.parameter_prior.mutable.items():
        for attribute in some:
            read = [*(world.renderer.environment if owner == ENVIRONMENT else world.renderer.attributes)]
            if owner == ENVIRONMENT and attribute.name in world.parameter_prior.derived_attributes:
                read += world.renderer.attributes
            yield owner, attribute, next((a for a in read if a.name == world.renderer_attribute(attribute)), None)


def owned(world: World, owner: str, scenes: SceneBatch) -> Bool[Tensor, "b n"]:
    """Return which objects the owner of an attribute stands for: those of a class, or all of the grammar's."""
    names = world.grammar.classes if owner == EVERY else [owner]
    numbers = [world.classes.index(name) for name in names]
    return torch.isin(scenes.classes, torch.tensor(numbers, device=scenes.classes.device))


def mutable(world: World, draw: Generator) -> Iterator[Finding]:
    """What may be learned is declared of known classes, drawn within its bounds, and stays within the renderer's."""
    prior = world.parameter_prior
    where = place(prior, "mutable")
    listed = [(owner, attribute.name) for owner, attribute, _ in mutable_of(world)]
    unknown = [owner for owner in prior.mutable if owner not in {*world.classes, EVERY, ENVIRONMENT}]
    if unknown:
        expected = f"owners among {', '.join([EVERY, ENVIRONMENT, *world.classes])}"
        yield Finding(where, expected, ", ".join(unknown))
        return
    if len(set(listed)) < len(listed):
        twice = sorted({f"{name} of {owner}" for owner, name in listed if listed.count((owner, name)) > 1})
        yield Finding(where, "each attribute once", f"several of {', '.join(twice)}")
    scenes = sample_scenes(world, NUM_SCENES, draw)
    for owner, attribute, reads in mutable_of(world):
        yield from _drawn_within(world, owner, attribute, reads, scenes)
        if reads is not None and attribute.name not in prior.derived_attributes:
            yield from _learned_within(world, attribute, reads, scenes)


def _drawn_within(
    world: World, owner: str, attribute: Attribute, reads: Attribute | None, scenes: SceneBatch
) -> Iterator[Finding]:
    """Find values that the prior draws beyond the bounds of learning; of what is relative, those of the difference."""
    prior, name = world.parameter_prior, attribute.name
    if not attribute.low < attribute.high:
        bounds = f"{attribute.low:.6g} .. {attribute.high:.6g}"
        yield Finding(place(prior, "mutable"), f"{name!r} with a lower bound below the upper", bounds)
    drawn = scenes.environment if owner == ENVIRONMENT else scenes.attributes
    if name not in drawn:
        yield Finding(place(prior, "sample"), f"{name!r}, which {place(prior, 'mutable')} lists", ", ".join(drawn))
        return
    values = drawn[name] if owner == ENVIRONMENT else scenes.value(attribute)[owned(world, owner, scenes)]
    if not within(values, attribute.low, attribute.high, SLACK):
        relative = " relative to the parent's" if attribute.relative else ""
        expected = (
            f"{name!r} of {owner}{relative} in {attribute.low:.6g} .. {attribute.high:.6g}, where it may be learned"
        )
        yield Finding(place(prior, "sample"), expected, span(values))
    derived = attribute.name in prior.derived_attributes
    if reads is not None and not derived and attribute.periodic != reads.periodic:
        kind = "periodic" if reads.periodic else "not periodic"
        yield Finding(place(prior, "mutable"), f"{name!r} {kind}, as {place(world.renderer)} reads it", "the opposite")


def _learned_within(world: World, attribute: Attribute, reads: Attribute, scenes: SceneBatch) -> Iterator[Finding]:
    """Find bounds of learning beyond the renderer's; of what is relative, beside every parent that the prior draws."""
    least, most = attribute.low, attribute.high
    if attribute.relative:
        parent_values = scenes.parent_values(scenes.attributes[attribute.name])[scenes.parents >= 0]
        if not len(parent_values):
            return
        least, most = least + float(parent_values.min()), most + float(parent_values.max())
    if not within(torch.tensor([least, most]), reads.low, reads.high, SLACK):
        expected = f"{attribute.name!r} within {place(world.renderer)}'s bounds {reads.low:.6g} .. {reads.high:.6g}"
        yield Finding(place(world.parameter_prior, "mutable"), expected, f"{least:.6g} .. {most:.6g}")


def derived(world: World, draw: Generator) -> Iterator[Finding]:
    """Attributes derived from learned ones are as the prior draws them, and within bounds for any learned value."""
    prior, where = world.parameter_prior, place(world.parameter_prior, "derive_attributes")
    scenes = sample_scenes(world, NUM_SCENES, draw)
    again = call(prior, "derive_attributes", scenes)
    if not torch.equal(again.classes, scenes.classes) or not torch.equal(again.parents, scenes.parents):
        yield Finding(where, "the scenes' own classes and parents", "others")
        return
    for name, values in scenes.attributes.items():
        if name not in again.attributes:
            yield Finding(where, f"the attribute {name!r}", "none")
        elif not torch.allclose(again.attributes[name], values, atol=1e-3, rtol=1e-5):
            distance = float((again.attributes[name] - values).abs().max())
            yield Finding(where, f"{name!r} as {place(prior, 'sample')} draws it", f"a difference of {distance:.3g}")
    unknown = prior.derived_attributes.keys() - {attribute.name for _, attribute, _ in mutable_of(world)}
    if unknown:
        yield Finding(place(prior, "derived_attributes"), "mutable attributes", ", ".join(sorted(unknown)))
    for owner, attribute, reads in mutable_of(world):
        if attribute.name not in prior.derived_attributes:
            continue
        if reads is None:
            expected = f"{attribute.name!r} mapped to an attribute that {place(world.renderer)} reads"
            yield Finding(place(prior, "derived_attributes"), expected, prior.derived_attributes[attribute.name])
        else:
            yield from _derived_within(world, owner, attribute, reads, scenes, draw)


def _derived_within(
    world: World, owner: str, attribute: Attribute, reads: Attribute, scenes: SceneBatch, draw: Generator
) -> Iterator[Finding]:
    """Find derived attributes beyond the renderer's bounds, for either end of what may be learned and between."""
    prior, where = world.parameter_prior, place(world.parameter_prior, "derive_attributes")
    if attribute.relative:
        expected = f"{attribute.name!r}, which another is derived from, not relative"
        yield Finding(place(prior, "mutable"), expected, "a relative one")
        return
    shared = owner == ENVIRONMENT
    part = torch.rand((len(scenes),) if shared else scenes.classes.shape, generator=draw, device=draw.device)
    for fraction in (torch.zeros_like(part), torch.ones_like(part), part):
        value = attribute.low + (attribute.high - attribute.low) * fraction
        if shared:
            changed = scenes.with_environment(**{attribute.name: value})
        else:
            changed = scenes.with_attributes(**{attribute.name: torch.where(owned(world, owner, scenes), value, 0.0)})
        found, drawn = (_read(some, reads) for some in (call(prior, "derive_attributes", changed), scenes))
        if not within(found, reads.low, reads.high):
            expected = f"{reads.name!r} in {reads.low:.6g} .. {reads.high:.6g} for any {attribute.name!r}"
            yield Finding(where, expected, span(found))
        if torch.equal(found, drawn):
            yield Finding(where, f"{reads.name!r} to change with {attribute.name!r}", "no change")


def _read(scenes: SceneBatch, attribute: Attribute) -> Tensor:
    """Return the values of an attribute, of all objects or of the scenes as a whole."""
    if attribute.name in scenes.environment:
        return scenes.environment[attribute.name]
    return scenes.attributes[attribute.name][scenes.mask]
