"""Distributions of objects' continuous attributes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin
from ms2.scene.attributes import ENVIRONMENT
from ms2.scene.batch import SceneBatch

CHUNK = 2**18
"""Numbers of 8 bytes held at once."""


class Measured(NamedTuple):
    """Values of an attribute in a set of scenes.

    Attributes:
        values: The values, in the attribute's unit.
        scene: Number of the scene that each is from, from 0.
    """

    values: Float[Tensor, " k"]
    scene: Int[Tensor, " k"]


class AttributeStatistic(Plugin, ABC, kind="attribute_statistics"):
    """A continuous quantity, of which each scene may have any number of values.

    Attributes:
        name: Short name, the prefix of its distances in ``metrics.json``.
        title: What it is, for pictures.
        unit: Unit of its values; empty where they have none.
        period: For angles, the value, in the unit, that is the same as 0.
    """

    name: str
    title: str
    unit: str
    period: float | None = None

    @abstractmethod
    def values(self, scenes: SceneBatch, classes: Sequence[str]) -> Measured:
        """All values in these scenes, in double precision; ``classes`` are the names of the scenes' classes."""


class AttributeOf(AttributeStatistic):
    """An attribute of objects, or of the scene as a whole.

    Args:
        attribute: Name of the attribute.
        name: Short name of the statistic.
        classes: Class or classes of the objects, all by default; "environment" for a parameter of the scene as a whole.
        relative: Take the value less that of the object's parent. Objects without a parent are left out.
        degrees: The attribute is an angle in radians; its values become degrees from -180 to 180.
        unit: Unit of the attribute, where it is no angle, as pictures show it.
    """

    def __init__(
        self,
        attribute: str,
        name: str,
        classes: str | list[str] | None = None,
        relative: bool = False,
        degrees: bool = False,
        unit: str = "",
    ) -> None:
        if classes == ENVIRONMENT and relative:
            raise UserError("parameters of the environment have no parent that they could be relative to")
        if classes is not None and not classes:
            raise UserError(
                'classes must name a class, as in classes="car" or classes=["car", "truck"]; leave it out for all '
                "classes"
            )
        self.attribute, self.name, self.classes, self.relative, self.degrees = (
            attribute,
            name,
            classes,
            relative,
            degrees,
        )
        self.unit, self.period = ("°", 360.0) if degrees else (unit, None)
        owners = "objects" if classes is None else classes if isinstance(classes, str) else ", ".join(classes)
        self.title = f"{attribute} of {owners}{' relative to their parents' if relative else ''}"

    def values(self, scenes: SceneBatch, classes: Sequence[str]) -> Measured:
        """One value per object of these classes; of the environment, one per scene.

        Raises:
            UserError: If there is no such class or attribute.
        """
        if self.classes == ENVIRONMENT:
            values = _look_up(self.attribute, scenes.environment, "scenes as a whole")
            return Measured(self._in_unit(values), torch.arange(len(scenes), device=values.device))
        chosen = scenes.mask & self._chosen(scenes, classes)
        values = _look_up(self.attribute, scenes.attributes, "objects").double()
        if self.relative:
            chosen = chosen & (scenes.parents >= 0)
            values = values - scenes.parent_values(values)
        return Measured(self._in_unit(values[chosen]), chosen.nonzero()[:, 0])

    def _chosen(self, scenes: SceneBatch, classes: Sequence[str]) -> Bool[Tensor, "b n"]:
        if self.classes is None:
            return scenes.classes < len(classes)
        if isinstance(self.classes, str):
            return scenes.classes == _number_of(self.classes, classes, ENVIRONMENT)
        return torch.isin(
            scenes.classes, scenes.classes.new_tensor([_number_of(name, classes) for name in self.classes])
        )

    def _in_unit(self, values: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        values = values.double()
        return (values.rad2deg() + 180) % 360 - 180 if self.degrees else values


class Gap(AttributeStatistic):
    """How far it is from an object to the next of its class with the same parent, as from a car to the one ahead.

    The last one has none ahead, and no value. Those without a parent count as having the same.

    Args:
        classes: Class of the objects between which the gaps are.
        along: Name of the attribute by which they stand in order, and whose differences are the gaps.
        name: Short name of the statistic.
        same: Name of an attribute, such as the place across the road, which must be about the same: the next object
            is the first that follows on the same lane. By default any object may be the next.
        tolerance: By less than how much it may differ from the object's own to be the same.
        unit: Unit of the attribute, as pictures show it.
    """

    def __init__(
        self, classes: str, along: str, name: str, same: str | None = None, tolerance: float = 0.0, unit: str = ""
    ) -> None:
        if (same is None) != (tolerance == 0) or not 0 <= tolerance < math.inf:
            raise UserError(
                f"same={same!r} and tolerance={tolerance:g} were given, but an attribute that must be the same needs a "
                'tolerance above 0, and a tolerance such an attribute: try same="y", tolerance=1.8, or leave out both'
            )
        self.classes, self.along, self.name, self.same, self.tolerance, self.unit = (
            classes,
            along,
            name,
            same,
            tolerance,
            unit,
        )
        self.title = f"{along} from {classes} to next {classes}"

    def values(self, scenes: SceneBatch, classes: Sequence[str]) -> Measured:
        """One value per object that has a next one.

        Raises:
            UserError: If there is no such class or attribute.
        """
        chosen = scenes.classes == _number_of(self.classes, classes)
        along = _look_up(self.along, scenes.attributes, "objects").double()
        across = torch.zeros_like(along) if self.same is None else _look_up(self.same, scenes.attributes, "objects")
        most = max(1, int(chosen.sum(1).max())) if len(scenes) else 1
        first = (~chosen).long().argsort(dim=1, stable=True)[:, :most]  # of all objects, pairs would be too many
        columns = [column.gather(1, first) for column in (chosen, scenes.parents, along, across.double())]
        parts = zip(*(column.split(max(1, CHUNK // most**2)) for column in columns), strict=True)
        gaps = torch.cat([self._to_next(*part) for part in parts])
        return Measured(gaps[gaps < math.inf], (gaps < math.inf).nonzero()[:, 0])

    def _to_next(
        self,
        chosen: Bool[Tensor, "b n"],
        parents: Int[Tensor, "b n"],
        along: Float[Tensor, "b n"],
        across: Float[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """How far ahead the next object is; infinitely far where there is none."""
        ahead = along[:, None] - along[:, :, None]
        # of those at the same place, each is followed by the next that the grammar made
        later = torch.ones_like(ahead, dtype=torch.bool).triu(1)
        follows = chosen[:, None] & chosen[:, :, None] & (parents[:, None] == parents[:, :, None])
        follows &= (ahead > 0) | ((ahead == 0) & later)
        if self.same is not None:
            follows &= (across[:, None] - across[:, :, None]).abs() < self.tolerance
        return ahead.where(follows, math.inf).amin(2)


def _number_of(name: str, classes: Sequence[str], *others: str) -> int:
    """The number of a class; `others` are further names that may be meant."""
    if name not in classes:
        near = suggest(name, [*classes, *others])
        raise UserError(f"an attribute of {name!r} is measured, but there is no such class. {near}")
    return list(classes).index(name)


def _look_up(name: str, attributes: dict[str, Tensor], whose: str) -> Tensor:
    if name not in attributes:
        raise UserError(f"the attribute {name!r} is measured, but {whose} have none. {suggest(name, attributes)}")
    return attributes[name]
