"""Statistics of continuous attributes of objects, and of scenes as a whole."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.bounds import NonNegativeFloat
from ms2.core.errors import UserError, suggest
from ms2.metrics.attribute_distances import AttributeSample, attribute_noise_floor, compare_attributes
from ms2.metrics.base import HISTOGRAM_ROWS, Statistic, round_fractions
from ms2.metrics.histograms import distribution
from ms2.metrics.intervals import Interval
from ms2.metrics.results import HistogramResult
from ms2.metrics.statistics import class_index
from ms2.scene.attributes import ENVIRONMENT
from ms2.scene.batch import SceneBatch

if TYPE_CHECKING:
    from torchmetrics import Metric

MAX_PAIRS_PER_CHUNK = 2**18
"""Pairs of objects held at once: 8 bytes each."""
HISTOGRAM_BINS = 30
"""Bins of a histogram of attribute values."""
SHOWN_QUANTILES = (0.002, 0.998)
"""Quantiles of all values between which a histogram lies; values beyond are in its first or last bin."""


class AttributeStatistic(Statistic[AttributeSample], kind="attribute_statistics"):
    """Base class of statistics of a continuous attribute; a scene has zero or more values.

    Attributes:
        period: For angles, the value, in the unit, that is the same as 0.
    """

    period: float | None = None

    def compare(
        self, generated: AttributeSample, target: AttributeSample, *, generator: torch.Generator
    ) -> dict[str, Interval]:
        """Compute the Wasserstein distance, in the unit."""
        return {"w1": compare_attributes(generated, target, self.period, generator=generator)}

    def noise_floor(self, target: AttributeSample, num_scenes: int, *, generator: torch.Generator) -> dict[str, float]:
        """Estimate the Wasserstein distance of a perfect model."""
        return {"w1": attribute_noise_floor(target, num_scenes, self.period, generator=generator)}

    def histogram(self, samples: Mapping[str, AttributeSample], class_names: Sequence[str]) -> HistogramResult | None:
        """Compute the share of values in each of `HISTOGRAM_BINS` bins; None without values."""
        shown = {row: samples[row].values.double() for row in HISTOGRAM_ROWS if row in samples}
        values = torch.cat(list(shown.values()))
        if not len(values):
            return None
        low, high = (float(values.quantile(q)) for q in SHOWN_QUANTILES)
        edges = torch.linspace(low, max(high, low + 1e-6), HISTOGRAM_BINS + 1, dtype=torch.double)
        shares = {
            row: distribution(torch.histogram(some.clamp(low, high), edges).hist[None]).tolist()
            for row, some in shown.items()
        }
        bins = _distinct_numbers(((edges[1:] + edges[:-1]) / 2).tolist())
        title = self.title + (f" ({self.unit})" if self.unit else "")
        return HistogramResult(self.name, title, bins, {row: round_fractions(share) for row, share in shares.items()})

    def validation_metric(self, target: AttributeSample) -> "tuple[str, Metric] | None":
        """Make a metric that accumulates the Wasserstein distance."""
        from ms2.metrics.accumulated import AttributeWasserstein

        return "w1", AttributeWasserstein(target.values, self.period)


class AttributeValue(AttributeStatistic):
    """The value of an attribute, of objects of some classes or of the environment.

    Args:
        attribute: Name of the attribute.
        name: Short name, the key in ``metrics.json`` and on figures.
        classes: Object classes to include, all by default; "environment" for an attribute of the whole scene.
        relative_to_parent: Subtract the parent's value; objects without a parent are left out.
        in_degrees: Convert an angle in radians to degrees in [-180, 180).
        unit: Unit shown on axis labels; ignored for angles.

    Example:
        >>> heading = AttributeValue("angle", name="heading", classes="car", in_degrees=True)
        >>> heading.unit
        '°'
    """

    def __init__(
        self,
        attribute: str,
        name: str,
        classes: str | list[str] | None = None,
        relative_to_parent: bool = False,
        in_degrees: bool = False,
        unit: str = "",
    ) -> None:
        if classes == ENVIRONMENT and relative_to_parent:
            raise UserError("attributes of the environment have no parent that they could be relative to")
        if classes is not None and not classes:
            raise UserError(
                'classes must name a class, as in classes="car" or classes=["car", "truck"]; leave it out for all '
                "classes"
            )
        self.attribute, self.name, self.classes = attribute, name, classes
        self.relative_to_parent, self.in_degrees = relative_to_parent, in_degrees
        self.unit, self.period = ("°", 360.0) if in_degrees else (unit, None)
        owners = "objects" if classes is None else classes if isinstance(classes, str) else ", ".join(classes)
        self.title = f"{attribute} of {owners}{' relative to their parents' if relative_to_parent else ''}"

    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> AttributeSample:
        """Collect one value per object of the classes, or one per scene for the environment.

        Raises:
            UserError: If there is no such class or attribute.
        """
        if self.classes == ENVIRONMENT:
            values = _attribute(self.attribute, scenes.environment, "scenes as a whole")
            return AttributeSample(self._in_unit(values), torch.arange(len(scenes), device=values.device), len(scenes))
        chosen = scenes.mask & self._chosen(scenes, class_names)
        values = _attribute(self.attribute, scenes.attributes, "objects").double()
        if self.relative_to_parent:
            chosen = chosen & (scenes.parents >= 0)
            values = values - scenes.parent_values(values)
        return AttributeSample(self._in_unit(values[chosen]), chosen.nonzero()[:, 0], len(scenes))

    def _chosen(self, scenes: SceneBatch, class_names: Sequence[str]) -> Bool[Tensor, "b n"]:
        if self.classes is None:
            return scenes.classes < len(class_names)
        if isinstance(self.classes, str):
            return scenes.classes == class_index(self.classes, class_names, ENVIRONMENT)
        return torch.isin(
            scenes.classes, scenes.classes.new_tensor([class_index(name, class_names) for name in self.classes])
        )

    def _in_unit(self, values: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        values = values.double()
        return (values.rad2deg() + 180) % 360 - 180 if self.in_degrees else values


class NeighbourGap(AttributeStatistic):
    """Distance from an object to the next one of its class with the same parent, such as a car to the car ahead.

    The last object has no value. Objects without a parent count as having the same parent.

    Args:
        object_class: Class of the objects between which gaps are measured.
        order_by: Attribute that orders the objects; gaps are differences of it.
        name: Short name, the key in ``metrics.json`` and on figures.
        group_by: Attribute, such as the lateral position, that two objects must share (within `tolerance`) to count as
            neighbours; by default all objects of one parent do.
        tolerance: Differences of `group_by` between neighbours are below this.
        unit: Unit shown on axis labels.
    """

    def __init__(
        self,
        object_class: str,
        order_by: str,
        name: str,
        group_by: str | None = None,
        tolerance: NonNegativeFloat = 0.0,
        unit: str = "",
    ) -> None:
        if (group_by is None) != (tolerance == 0):
            raise UserError(
                f"group_by={group_by!r} and tolerance={tolerance:g} were given, but an attribute that neighbours share "
                'needs a tolerance above 0, and a tolerance such an attribute: try group_by="y", tolerance=1.8, or '
                "leave out both"
            )
        self.object_class, self.order_by, self.name = object_class, order_by, name
        self.group_by, self.tolerance, self.unit = group_by, tolerance, unit
        self.title = f"{order_by} from {object_class} to next {object_class}"

    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> AttributeSample:
        """Collect one gap per object that has a successor.

        Raises:
            UserError: If there is no such class or attribute.
        """
        chosen = scenes.classes == class_index(self.object_class, class_names)
        along = _attribute(self.order_by, scenes.attributes, "objects").double()
        across = torch.zeros_like(along)
        if self.group_by is not None:
            across = _attribute(self.group_by, scenes.attributes, "objects")
        max_chosen = max(1, int(chosen.sum(1).max())) if len(scenes) else 1
        first = (~chosen).long().argsort(dim=1, stable=True)[:, :max_chosen]  # of all objects, pairs would be too many
        columns = [column.gather(1, first) for column in (chosen, scenes.parents, along, across.double())]
        parts = zip(*(column.split(max(1, MAX_PAIRS_PER_CHUNK // max_chosen**2)) for column in columns), strict=True)
        gaps = torch.cat([self._gaps(*part) for part in parts])
        return AttributeSample(gaps[gaps < math.inf], (gaps < math.inf).nonzero()[:, 0], len(scenes))

    def _gaps(
        self,
        chosen: Bool[Tensor, "b n"],
        parents: Int[Tensor, "b n"],
        along: Float[Tensor, "b n"],
        across: Float[Tensor, "b n"],
    ) -> Float[Tensor, "b n"]:
        """Gap to the successor of each object; infinite where there is none."""
        ahead = along[:, None] - along[:, :, None]
        # of those at the same place, each is followed by the next that the grammar made
        later = torch.ones_like(ahead, dtype=torch.bool).triu(1)
        follows = chosen[:, None] & chosen[:, :, None] & (parents[:, None] == parents[:, :, None])
        follows &= (ahead > 0) | ((ahead == 0) & later)
        if self.group_by is not None:
            follows &= (across[:, None] - across[:, :, None]).abs() < self.tolerance
        return ahead.where(follows, math.inf).amin(2)


def _distinct_numbers(values: Sequence[float]) -> list[str]:
    """Format numbers with three digits, or as many as tell them apart: charts place bars by the names of bins."""
    for digits in range(3, 18):
        names = [f"{value:.{digits}g}" for value in values]
        if len({*names}) == len(names):
            break
    return names


def _attribute(name: str, attributes: dict[str, Tensor], owners: str) -> Tensor:
    if name not in attributes:
        raise UserError(f"the attribute {name!r} is measured, but {owners} have none. {suggest(name, attributes)}")
    return attributes[name]
