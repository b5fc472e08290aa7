"""Attributes of independent objects by ranges and histograms, as they are known of bounds or read off images."""

from collections.abc import Iterator, Mapping, Sequence

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

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Sample all attributes; those that a class lacks are 0."""
        draws = dict(zip(self.names, self._draws(scenes, generator), strict=True))
        if self.apart:
            for _ in range(NUM_REDRAWS):
                clash = self._clashes(scenes, self._values(scenes, draws))
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
        values = {name: self._absolute(scenes, name, draw) for name, draw in draws.items()}
        for _ in self.offsets:  # as often as one class can nest in another
            values |= dict(self._relative(scenes, draws, dict(values)))
        return values

    def _absolute(self, scenes: SceneBatch, name: str, draw: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        value = torch.zeros_like(draw)
        for c, one in enumerate(self.classes):
            if name in self.ranges[one]:
                relative = name in self.offsets.get(one, {})
                weights = [1.0] if relative else self.histograms.get(one, {}).get(name, [1.0])
                value = torch.where(scenes.classes == c, _quantile(draw, self.ranges[one][name], weights), value)
        return value

    def _relative(
        self, scenes: SceneBatch, draws: Mapping[str, Tensor], values: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, Float[Tensor, "b n"]]]:
        for name in self.names:
            value = values[name]
            for one, of_class in self.offsets.items():
                if name in of_class:
                    weights = self.histograms.get(one, {}).get(name, [1.0])
                    offset, unit = _quantile(draws[name], of_class[name], weights), self.units.get(one, {}).get(name)
                    if unit is not None:
                        offset = offset * scenes.parent_values(values[unit])
                    low, high = self.ranges[one][name]
                    found = (scenes.parent_values(values[name]) + offset).clamp(low, high)
                    nested = (scenes.classes == self.classes.index(one)) & (scenes.parents >= 0)
                    value = torch.where(nested, found, value)
            yield name, value

    def _clashes(self, scenes: SceneBatch, values: Mapping[str, Float[Tensor, "b n"]]) -> Bool[Tensor, "b n"]:
        """Find the objects whose box overlaps one that stays where it is: a larger one, or an earlier one of a class.

        Padding is of the last class of the tables, which clashes with none.
        """
        size, device = len(self.classes), scenes.classes.device
        pairs, extents = torch.zeros(size + 1, size + 1, dtype=torch.bool), torch.zeros(size + 1, 2)
        for one, (width, height) in self.extents.items():
            extents[self.classes.index(one)] = torch.tensor([width, height])
        for names in self.apart:
            first, second = map(self.classes.index, names)
            pairs[first, second] = pairs[second, first] = True
        half, area = (extents / 2).to(device)[scenes.classes], extents.prod(1).to(device)[scenes.classes]
        index = torch.arange(scenes.classes.shape[1], device=device)
        stays = (area[:, None] > area[..., None]) | ((area[:, None] == area[..., None]) & (index < index[:, None]))
        apart = pairs.to(device)[scenes.classes[..., None], scenes.classes[:, None]] & stays
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
        for setting in (self.histograms, self.offsets, self.units, self.extents, self.ascending):
            for name in setting:
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
        for name, of_class in self.histograms.items():
            for attribute, weights in of_class.items():
                if not sum(weights) > 0:
                    raise UserError(f"the histogram of {name}'s {attribute} must have a weight above 0")
        for of_class in self.units.values():
            for unit in of_class.values():
                if unit not in self.names:
                    raise UserError(f"units name {unit!r}, of which no class has a range. {suggest(unit, self.names)}")

    def _check_class(self, name: str) -> None:
        if name not in self.classes:
            raise UserError(f"there are no ranges of a class {name!r}. {suggest(name, self.classes)}")


def _quantile(draw: Float[Tensor, "b n"], ends: tuple[float, float], weights: Sequence[float]) -> Float[Tensor, "b n"]:
    """Compute the values below which a distribution has given probabilities: a histogram of equal bins over a range."""
    low, high = ends
    if len(weights) == 1:
        return low + (high - low) * draw
    total = torch.tensor(weights, device=draw.device, dtype=draw.dtype).cumsum(0)
    upper = total / total[-1]
    number = torch.searchsorted(upper, draw, right=True).clamp(max=len(weights) - 1)
    start = torch.cat([upper.new_zeros(1), upper])[number]
    within = ((draw - start) / (upper[number] - start).clamp(min=torch.finfo(draw.dtype).tiny)).clamp(0, 1)
    return low + (high - low) / len(weights) * (number + within)
