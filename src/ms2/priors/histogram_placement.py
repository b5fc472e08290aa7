"""Attributes of independent objects by ranges and histograms, as they are known of bounds or read off images."""

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import FiniteFloat, NonNegativeFloat, PositiveFloat
from ms2.core.errors import UserError, suggest
from ms2.priors.parameters import ParameterPrior
from ms2.scene.batch import SceneBatch

NUM_REDRAWS = 12
"""Rounds in which objects that overlap others are placed again; what still overlaps then stays."""

Range = tuple[FiniteFloat, FiniteFloat]
"""Lower and upper end."""


class Tables:
    """Histograms of attributes by class; the last class is that of unused entries, whose values are 0.

    Args:
        classes: Names of the classes.
        ranges: By class and attribute, lower and upper end.
        histograms: By class and attribute, weights of equal bins; uniform by default.

    Attributes:
        low: By attribute, the lower end for each class.
        high: The upper end.
        given: Whether a class has the attribute.
        upper: Probability of values up to the upper edge of each bin.
        bins: Number of bins.
    """

    def __init__(
        self,
        classes: Sequence[str],
        ranges: Mapping[str, Mapping[str, tuple[float, float]]],
        histograms: Mapping[str, Mapping[str, Sequence[float]]],
    ) -> None:
        self.low, self.high, self.given, self.upper, self.bins = (dict[str, Tensor]() for _ in range(5))
        for name in dict.fromkeys(name for of_class in ranges.values() for name in of_class):
            of = [ranges.get(one, {}).get(name) for one in classes] + [None]
            ends = torch.tensor([one or (0.0, 0.0) for one in of])
            rows = [torch.tensor(histograms.get(one, {}).get(name, [1.0])).cumsum(0) for one in classes]
            rows = [row / row[-1] for row in (*rows, torch.ones(1))]
            most = max(map(len, rows))
            self.low[name], self.high[name] = ends.unbind(1)
            self.given[name] = torch.tensor([one is not None for one in of])
            self.upper[name] = torch.stack([torch.cat([row, row.new_ones(most - len(row))]) for row in rows])
            self.bins[name] = torch.tensor([float(len(row)) for row in rows])

    def to(self, device: torch.device) -> "Tables":
        """Return the tables on a device."""
        if device.type == "cpu":
            return self
        moved = copy.copy(self)
        for key, tables in vars(self).items():
            setattr(moved, key, {name: table.to(device) for name, table in tables.items()})
        return moved

    def quantile(self, name: str, draw: Float[Tensor, "b n"], classes: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Compute the values below which an attribute has given probabilities."""
        low, width = self.low[name][classes], (self.high[name] - self.low[name])[classes]
        if self.upper[name].shape[1] == 1:
            return low + width * draw
        edges = self.upper[name][classes]
        number = (draw[..., None] >= edges).sum(2)
        end = edges.gather(2, number[..., None])[..., 0]
        start = torch.where(number > 0, edges.gather(2, (number - 1).clamp(min=0)[..., None])[..., 0], 0.0)
        within = (draw - start) / (end - start).clamp(min=torch.finfo(draw.dtype).tiny)
        return low + width * (number + within) / self.bins[name][classes]


class HistogramPlacement(ParameterPrior):
    """Draws attributes of objects independently: uniformly within a range, or by a histogram over it.

    Positions are ``x`` and ``y``. Those of nested objects may be relative to their parent. Objects of some pairs of
    classes may be kept apart: the smaller one, and of two of a class the later one, is placed again where their boxes
    overlap.

    Args:
        ranges: By class, in the order of the grammar's classes, the range of each attribute.
        histograms: By class and attribute, weights of equal bins of its range; uniform by default.
        offsets: By class and attribute, the range of the difference to the parent's; the histogram is then of this
            range. The sum is kept within ``ranges``. Objects without a parent are placed uniformly.
        units: By class and attribute, the parent's attribute in units of which the difference is, such as ``width``.
        environment: Ranges of attributes of the scene as a whole.
        extents: By class, width and height of the box of its objects in units of ``x`` and ``y``.
        apart: Pairs of classes whose boxes don't overlap; both classes have extents.
        ascending: By class, the attribute by which objects of one parent are sorted.

    Raises:
        UserError: If names don't fit each other, or a range is none.

    Example:
        >>> prior = HistogramPlacement({name: {"x": (0, 1), "y": (0.5, 1)} for name in world.grammar.classes})
        >>> scenes = scenes_from_derivations(world.grammar, rules)
        >>> bool(prior.sample(scenes, generator(0, "example")).attributes["y"].amin() >= 0.5)
        True
    """

    def __init__(
        self,
        ranges: dict[str, dict[str, Range]],
        histograms: dict[str, dict[str, list[NonNegativeFloat]]] | None = None,
        offsets: dict[str, dict[str, Range]] | None = None,
        units: dict[str, dict[str, str]] | None = None,
        environment: dict[str, Range] | None = None,
        extents: dict[str, tuple[PositiveFloat, PositiveFloat]] | None = None,
        apart: list[tuple[str, str]] | None = None,
        ascending: dict[str, str] | None = None,
    ) -> None:
        self.classes = list(ranges)
        self.ranges, self.histograms, self.offsets = ranges, histograms or {}, offsets or {}
        self.units, self.environment, self.extents = units or {}, environment or {}, extents or {}
        self.apart, self.ascending = apart or [], ascending or {}
        self.names = list(dict.fromkeys(name for some in ranges.values() for name in some))
        self._check()
        plain = {
            one: {k: v for k, v in some.items() if k not in self.offsets.get(one, {})}
            for one, some in self.histograms.items()
        }
        size = len(self.classes) + 1
        self._pairs, self._extents = torch.zeros(size, size, dtype=torch.bool), torch.zeros(size, 2)
        for one, box in self.extents.items():
            self._extents[self.classes.index(one)] = torch.tensor(box)
        for names in self.apart:
            first, second = map(self.classes.index, names)
            self._pairs[first, second] = self._pairs[second, first] = True
        self._tables = Tables(self.classes, ranges, plain), Tables(self.classes, self.offsets, self.histograms)

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Sample all attributes; those that a class lacks are 0."""
        draws = dict(zip(self.names, self._draws(scenes, generator), strict=True))
        if self.apart:
            places = {"x", "y", *(unit for of_class in self.units.values() for unit in of_class.values())}
            for _ in range(NUM_REDRAWS):
                clash = self._clashes(scenes, self._values(scenes, {name: draws[name] for name in sorted(places)}))
                for name, again in zip(("x", "y"), self._draws(scenes, generator, 2), strict=True):
                    draws[name] = torch.where(clash, again, draws[name])
        for name, attribute in self.ascending.items():
            place = self._siblings_in_order(scenes, self.classes.index(name), self._values(scenes, draws)[attribute])
            draws |= {one: draws[one].gather(1, place) for one in ("x", "y") if one in draws}
        of_scene = torch.rand(len(self.environment), len(scenes), generator=generator, device=generator.device)
        environment = {
            name: low + (high - low) * draw
            for (name, (low, high)), draw in zip(self.environment.items(), of_scene, strict=True)
        }
        placed = scenes.with_attributes(**self._values(scenes, draws))
        return placed.with_environment(**environment) if environment else placed

    def _draws(self, scenes: SceneBatch, generator: Generator, number: int | None = None) -> Float[Tensor, "a b n"]:
        """Draw the ranks of attributes: the probability that an attribute's value is below the one that is drawn."""
        number = len(self.names) if number is None else number
        return torch.rand(number, *scenes.classes.shape, generator=generator, device=generator.device)

    def _values(self, scenes: SceneBatch, draws: Mapping[str, Float[Tensor, "b n"]]) -> dict[str, Float[Tensor, "b n"]]:
        """Compute attributes from their ranks, those of parents before what is relative to them."""
        absolute, relative = self._tables[0].to(scenes.classes.device), self._tables[1].to(scenes.classes.device)
        values = {name: absolute.quantile(name, draw, scenes.classes) for name, draw in draws.items()}
        offsets = {
            name: (relative.quantile(name, draw, scenes.classes), self._units(name, scenes.classes.device))
            for name, draw in draws.items()
            if name in relative.high
        }
        for _ in self.offsets:  # as often as one class can nest in another
            found = {name: self._placed(scenes, name, values, *offset) for name, offset in offsets.items()}
            values |= found
        return values

    def _placed(
        self,
        scenes: SceneBatch,
        name: str,
        values: Mapping[str, Float[Tensor, "b n"]],
        offset: Float[Tensor, "b n"],
        units: Mapping[str, Bool[Tensor, " c"]],
    ) -> Float[Tensor, "b n"]:
        """Add differences to the parents' values, for the objects that have such a difference and a parent."""
        absolute, relative = (table.to(offset.device) for table in self._tables)
        for unit, chosen in units.items():
            offset = torch.where(chosen[scenes.classes], offset * scenes.parent_values(values[unit]), offset)
        found = scenes.parent_values(values[name]) + offset
        found = found.maximum(absolute.low[name][scenes.classes]).minimum(absolute.high[name][scenes.classes])
        nested = relative.given[name][scenes.classes] & (scenes.parents >= 0)
        return torch.where(nested, found, values[name])

    def _units(self, name: str, device: torch.device) -> dict[str, Bool[Tensor, " c"]]:
        """Return the units of differences, each with the classes that it is for."""
        units = [*(self.units.get(one, {}).get(name) for one in self.classes), None]
        return {unit: torch.tensor([one == unit for one in units], device=device) for unit in units if unit is not None}

    def _clashes(self, scenes: SceneBatch, values: Mapping[str, Float[Tensor, "b n"]]) -> Bool[Tensor, "b n"]:
        """Find the objects whose box overlaps one that stays where it is: a larger one, or an earlier one of a class.

        Padding is of the last class of the tables, which clashes with none.
        """
        device = scenes.classes.device
        pairs, extents = self._pairs.to(device), self._extents.to(device)
        half, area = (extents / 2)[scenes.classes], extents.prod(1)[scenes.classes]
        index = torch.arange(scenes.classes.shape[1], device=device)
        stays = (area[:, None] > area[..., None]) | ((area[:, None] == area[..., None]) & (index < index[:, None]))
        apart = pairs[scenes.classes[..., None], scenes.classes[:, None]] & stays
        for axis, name in enumerate(("x", "y")):
            place, reach = values[name], half[..., axis]
            apart &= (place[..., None] - place[:, None]).abs() < reach[..., None] + reach[:, None]
        return apart.any(2)

    def _siblings_in_order(self, scenes: SceneBatch, label: int, value: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Return, for each object, which one's place it takes so that siblings of a class ascend."""
        index = torch.arange(value.shape[1], device=value.device).expand_as(value)
        group = torch.where(scenes.classes == label, scenes.parents, index + value.shape[1])
        slots, by_value = group.argsort(dim=1, stable=True), value.argsort(dim=1, stable=True)
        ordered = by_value.gather(1, group.gather(1, by_value).argsort(dim=1, stable=True))
        return torch.empty_like(slots).scatter_(1, slots, ordered)

    def _check(self) -> None:
        for name in (*self.histograms, *self.offsets, *self.units, *self.extents, *self.ascending):
            self._check_class(name)
        for pair in self.apart:
            for name in pair:
                self._check_class(name)
                if name not in self.extents or not {"x", "y"} <= set(self.ranges[name]):
                    raise UserError(f"{name!r} is kept apart from others: give its extents, and ranges of x and y")
        for settings in (self.ranges, self.offsets, {"environment": self.environment}):
            for name, of_class in settings.items():
                for attribute, (low, high) in of_class.items():
                    if not low <= high:
                        raise UserError(
                            f"the range of {name}'s {attribute} must be two values in ascending order, not "
                            f"{[low, high]}"
                        )
        used = [
            (name, attribute)
            for setting in (self.histograms, self.offsets, self.units)
            for name, of_class in setting.items()
            for attribute in of_class
        ]
        for name, attribute in [*used, *self.ascending.items()]:
            if attribute not in self.ranges[name]:
                raise UserError(f"{name!r} has no range of {attribute!r}. {suggest(attribute, self.ranges[name])}")
        for name, weighted in self.histograms.items():
            for attribute, weights in weighted.items():
                if not sum(weights) > 0:
                    raise UserError(f"the histogram of {name}'s {attribute} must have a weight above 0")
        for units in self.units.values():
            for unit in units.values():
                if unit not in self.names:
                    raise UserError(f"units name {unit!r}, of which no class has a range. {suggest(unit, self.names)}")

    def _check_class(self, name: str) -> None:
        if name not in self.classes:
            raise UserError(f"there are no ranges of a class {name!r}. {suggest(name, self.classes)}")
