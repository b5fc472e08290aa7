"""The interface of statistics: what is measured in scenes, and how it is compared with the target's scenes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from ms2.core.registry import Plugin
from ms2.metrics.intervals import Interval
from ms2.metrics.results import HistogramResult
from ms2.scene.batch import SceneBatch

if TYPE_CHECKING:
    from torchmetrics import Metric

Sample = TypeVar("Sample")
"""What a statistic measures in a set of scenes."""
HISTOGRAM_ROWS = ("prior", "learned", "target")
"""Rows whose histograms are shown."""


class Statistic(Plugin, ABC, Generic[Sample]):
    """Base class of statistics: a quantity of scenes whose distribution is compared with the target's.

    Attributes:
        name: Short name, the key in ``metrics.json`` and on figures.
        title: Title for people.
        unit: Unit of the values; empty where they have none.
        counted_class: The one class whose objects the statistic counts; empty if it measures something else.
    """

    name: str
    title: str
    unit: str = ""
    counted_class: str = ""

    @abstractmethod
    def measure(self, scenes: SceneBatch, class_names: Sequence[str]) -> Sample:
        """Measure a set of scenes; `class_names` are the names of the scenes' classes."""

    @abstractmethod
    def compare(self, generated: Sample, target: Sample, *, generator: torch.Generator) -> dict[str, Interval]:
        """Compute the distances of two samples, each with a 95 % interval, the most important first."""

    @abstractmethod
    def noise_floor(self, target: Sample, num_scenes: int, *, generator: torch.Generator) -> dict[str, float]:
        """Estimate the distances that ``num_scenes`` scenes of a perfect model show."""

    def mean(self, sample: Sample) -> float | None:
        """Compute the mean; None where it has no meaning."""
        return None

    def histogram(self, samples: Mapping[str, Sample], class_names: Sequence[str]) -> HistogramResult | None:
        """Compute the histograms of samples by row; None where there is nothing to show."""
        return None

    def validation_metric(self, target: Sample) -> "tuple[str, Metric] | None":
        """Make a metric that accumulates the main distance to the target, and name it; None for none."""
        return None


def round_fractions(fractions: Sequence[float]) -> list[float]:
    """Round fractions to the precision that files store."""
    return [round(fraction, 6) for fraction in fractions]
