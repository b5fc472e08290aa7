"""The attributes of a world that a parameter model may change, and the classes that have them."""

import torch

from ms2.core.errors import UserError, suggest
from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.world import World

Found = dict[tuple[Attribute, bool], list[int]]
"""By attribute, and whether it is the environment's: rows in `MutableAttributes.table` of the classes with it."""


class ParameterError(UserError):
    """Attributes can't be learned, or exceed their bounds."""


class MutableAttributes:
    """The k mutable attributes of a world, and the classes that have them.

    Args:
        world: Its parameter prior says which attributes are mutable, its renderer which of them images show.
        learned: Names of attributes by class, to learn only these; all by default.

    Attributes:
        attributes: The attributes with their bounds. Classes with different bounds have an attribute each.
        rendered: Names of the renderer's attributes that they determine.
        shared: Which attributes belong to the environment, the scene as a whole.
        table: Which attributes each class has; the last row is the environment's.

    Raises:
        ParameterError: If there is no mutable attribute, or a class or an attribute is named that does not exist.
    """

    def __init__(self, world: World, learned: dict[str, list[str]] | None = None) -> None:
        found = _mutable(world)
        if not found:
            raise ParameterError(
                f"{type(world.parameter_prior).__name__} has no mutable attribute that {type(world.renderer).__name__} "
                "uses: give the parameter prior a 'mutable', as in mutable = {'car': (Attribute('x', 0, 64),)}, or "
                "leave out model.parameters"
            )
        if learned is not None:
            found = _selected(found, learned, world)
            if not found:
                raise ParameterError(
                    "'learned_attributes' names no attribute: name some, or leave it out to learn all of them"
                )
        self.attributes = [attribute for attribute, _ in found]
        self.rendered = frozenset(world.renderer_attribute(attribute) for attribute in self.attributes)
        self.shared = torch.tensor([shared for _, shared in found])
        self.table = torch.zeros(len(world.classes) + 1, len(found), dtype=torch.bool)
        for k, rows in enumerate(found.values()):
            self.table[rows, k] = True

    @property
    def names(self) -> frozenset[str]:
        """Names of all mutable attributes."""
        return frozenset(attribute.name for attribute in self.attributes)


def _mutable(world: World) -> Found:
    """Collect the attributes that the parameter prior calls mutable and the renderer uses."""
    mutable, found = world.parameter_prior.mutable, Found()
    for owner, attributes in mutable.items():
        all_rows = _rows(owner, world, type(world.parameter_prior).__name__)
        for attribute in attributes:
            # bounds given for a class take precedence over those given for all classes
            own = {name for name, some in mutable.items() if attribute.name in {a.name for a in some}}
            rows = [n for n in all_rows if owner != EVERY or world.classes[n] not in own]
            if rows and world.is_rendered(attribute, owner == ENVIRONMENT):
                found.setdefault((attribute, owner == ENVIRONMENT), []).extend(rows)
    return found


def _rows(owner: str, world: World, setting: str) -> list[int]:
    """Return the rows of `MutableAttributes.table` for a class name, ``EVERY`` or ``ENVIRONMENT``."""
    if owner == ENVIRONMENT:
        return [len(world.classes)]
    if owner == EVERY:
        return list(range(len(world.grammar.classes)))
    if owner not in world.classes:
        raise ParameterError(
            f"{setting} would learn attributes of {owner!r}, which the world lacks. "
            f"{suggest(owner, [*world.classes, EVERY, ENVIRONMENT])}"
        )
    return [world.classes.index(owner)]


def _selected(found: Found, learned: dict[str, list[str]], world: World) -> Found:
    """Select the attributes that are named."""
    kept = Found()
    for owner, names in learned.items():
        rows = set(_rows(owner, world, "'learned_attributes'"))
        possible = {key: rows & set(some) for key, some in found.items() if rows & set(some)}
        for name in names:
            match = {key: sorted(some) for key, some in possible.items() if key[0].name == name}
            if not match:
                raise ParameterError(
                    f"{name!r} of {owner!r} can't be learned. {suggest(name, {key[0].name for key in possible})}"
                )
            for key, some in match.items():
                kept.setdefault(key, []).extend(some)
    return kept
