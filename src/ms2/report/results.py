"""Metrics of a run against baselines: a panel with a verdict for each, and a table of all distances."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ms2.core.formatting import format_interval, format_number
from ms2.metrics.results import (
    BEST_PCFG,
    DISTANCE_TITLES,
    LEARNED,
    NOISE_FLOOR,
    PRIOR,
    ROW_TITLES,
    TARGET,
    Estimate,
    Results,
    StatisticResult,
)
from ms2.report.charts import ROW_COLOURS, Chart
from ms2.report.interval_charts import IntervalRow, interval_chart
from ms2.report.tables import Cell, Table

COLUMN_ORDER = tuple(dict.fromkeys((LEARNED, *ROW_TITLES)))
"""Names of rows in the order in which distances are shown, the learned model's first."""
DISTANCES_WITH_UNIT = ("wasserstein", "w1")
"""Distances in the unit of the statistic."""


class Verdict(NamedTuple):
    """What learning changed, judged by the intervals of prior and learned model.

    Attributes:
        kind: ``good``, ``bad`` or ``even``.
        text: The relative change, and what it is worth.
    """

    kind: str
    text: str


class BaselineRow(NamedTuple):
    """A row of a metric's panel: the distance of a baseline or of the learned model.

    Attributes:
        title: Title of the row.
        colour: Name of its CSS variable.
        cell: The distance with its interval.
    """

    title: str
    colour: str
    cell: Cell


@dataclass(frozen=True)
class ReportedMetric:
    """One distance to the target: of the learned model and of its baselines.

    Attributes:
        title: What is measured.
        distance: Title of the distance, with its unit.
        estimates: Finite distances by row; that of the learned model is among them.
        mean_values: Means of the statistic by row, where they have a meaning.
    """

    title: str
    distance: str
    estimates: Mapping[str, Estimate]
    mean_values: Mapping[str, float]

    @property
    def name(self) -> str:
        """Title and distance."""
        return self.title if self.title == self.distance else f"{self.title}, {self.distance}"

    @property
    def learned(self) -> str:
        """Distance of the learned model."""
        return format_number(self.estimates[LEARNED].value)

    @property
    def prior(self) -> str:
        """Distance of the prior; empty if unknown."""
        return format_number(self.estimates[PRIOR].value) if PRIOR in self.estimates else ""

    @property
    def noise_floor(self) -> str:
        """Distance of a perfect model; empty if unknown."""
        return format_number(self.estimates[NOISE_FLOOR].value) if NOISE_FLOOR in self.estimates else ""

    @property
    def verdict(self) -> Verdict | None:
        """Compare the intervals of prior and learned model; None if one is unknown."""
        learned, prior = self.estimates[LEARNED], self.estimates.get(PRIOR)
        if prior is None or not prior.value or learned.interval is None or prior.interval is None:
            return None
        change = f"{100 * (learned.value / prior.value - 1):+.0f} %".replace("-", "−")
        if learned.interval[1] < prior.interval[0]:
            floor = self.estimates.get(NOISE_FLOOR)
            at_floor = floor is not None and learned.interval[0] <= floor.value
            return Verdict("good", f"{change}, at the noise floor" if at_floor else f"{change} from the prior")
        if learned.interval[0] > prior.interval[1]:
            return Verdict("bad", f"{change} from the prior: worse")
        return Verdict("even", f"{change}, within the intervals")

    @property
    def chart(self) -> Chart:
        """Chart of all rows with their intervals."""
        rows = [IntervalRow(name, ROW_TITLES[name], one.value, one.interval) for name, one in self.estimates.items()]
        return interval_chart(self.name, rows)

    @property
    def rows(self) -> list[BaselineRow]:
        """All rows with their intervals."""
        return [
            BaselineRow(ROW_TITLES[name], ROW_COLOURS[name], estimate_cell(one)) for name, one in self.estimates.items()
        ]

    @property
    def means(self) -> str:
        """Means of prior, learned model and target; empty if one is unknown."""
        means = {ROW_TITLES[row]: self.mean_values.get(row, math.nan) for row in (PRIOR, LEARNED, TARGET)}
        known = all(math.isfinite(mean) for mean in means.values())
        return ", ".join(f"{title} {mean:.2f}" for title, mean in means.items()) if known else ""


@dataclass(frozen=True)
class ResultsSection:
    """Results of a run.

    Attributes:
        metrics: One metric per statistic, then KID and FID.
        explanation: What the distances and baselines mean.
        all_distances: Every distance of every statistic.
    """

    metrics: list[ReportedMetric]
    explanation: str
    all_distances: Table


@dataclass(frozen=True)
class ReadingsSection:
    """What the extractor reads in a target without known truth, beside prior and learned model.

    Attributes:
        explanation: That these are readings, and of how many images.
        means: Mean numbers of objects.
    """

    explanation: str
    means: Table


def results_section(results: Results) -> ResultsSection:
    """Collect the metrics of a run."""
    return ResultsSection(main_metrics(results), _explanation(results), _distance_table(results))


def readings_section(results: Results) -> ReadingsSection | None:
    """Build the table of readings; None where there are distances of structure."""
    found = results.readings
    if found is None:
        return None
    total = "" if found.num_target_images is None else f" of the target's {found.num_target_images:,}"
    rows = list(found.objects)
    means = {"all objects": found.objects, **found.classes}
    return ReadingsSection(
        "Readings, not truth: no structure of the target is known, or its labels were not evaluated (ms2 test with "
        "--evaluate_labels true does that). These are mean numbers of objects per image that "
        f"the trained extractor reads in {found.num_images:,}{total} images, and in as many of the prior and of the "
        "learned model. They are wrong by as much as the extractor miscounts, which may be more in images that look "
        "unlike those it was trained on.",
        Table(
            ["", *(ROW_TITLES.get(row, row) for row in rows)],
            [[name, *(format_number(by_row.get(row, math.nan)) for row in rows)] for name, by_row in means.items()],
        ),
    )


def main_metrics(results: Results) -> list[ReportedMetric]:
    """Collect one metric per statistic, of its main distance (`StatisticResult.main`), then KID and FID.

    Distances that are not finite are left out; a KL divergence may be infinite.
    """
    found = [statistic_metric(one, one.main) for one in results.statistics.values() if one.distances]
    return [metric for metric in (*found, *_image_metrics(results)) if metric is not None]


def estimate_cell(estimate: Estimate | None) -> Cell:
    """Build the cell of a number with its interval."""
    if estimate is None:
        return Cell("")
    ends = estimate.interval
    return Cell(format_number(estimate.value), format_interval(*ends) if ends else "")


def statistic_metric(statistic: StatisticResult, distance: str) -> ReportedMetric | None:
    """Build the `ReportedMetric` of one of a statistic's distances; None if the learned model's is not finite."""
    unit = f" in {statistic.unit}" if statistic.unit and distance in DISTANCES_WITH_UNIT else ""
    title = DISTANCE_TITLES.get(distance, distance) + unit
    return _metric(statistic.title, title, statistic.distances[distance], statistic.means)


def _image_metrics(results: Results) -> list[ReportedMetric | None]:
    distances = {} if results.images is None else results.images.distances
    return [_metric(DISTANCE_TITLES[name], DISTANCE_TITLES[name], rows, {}) for name, rows in distances.items()]


def _metric(
    title: str, distance: str, rows: Mapping[str, Estimate], means: Mapping[str, float]
) -> ReportedMetric | None:
    finite = {name: one for name, one in rows.items() if math.isfinite(one.value) and name in ROW_TITLES}
    order = [name for name in COLUMN_ORDER if name in finite]
    return ReportedMetric(title, distance, {name: finite[name] for name in order}, means) if LEARNED in finite else None


def _explanation(results: Results) -> str:
    rows = {name for one in results.statistics.values() for found in one.distances.values() for name in found}
    explained = [
        "Total variation is half the sum of the absolute differences between two histograms: 0 where they agree, 1 "
        "where they don't overlap. A Wasserstein distance is how far an attribute has to be moved on average. The "
        "noise floor is the mean distance of a perfect model: that of two samples of the target's distribution, as "
        "large as those that were compared. Ranges are 95 % intervals."
    ]
    if results.visible:
        explained.append(
            "Visible objects are those that an annotator of images would label: at least a tenth of the object is "
            "visible, and on streets it is at least 8 pixels high. They were counted in up to "
            f"{results.measured_with.num_visible:,} rendered images each of prior, learned model and target."
        )
    if BEST_PCFG in rows:
        explained.append(
            "The best PCFG is the grammar with the rule probabilities that fit the target's true structures best; it "
            "is fitted to the labels, which learning does not use."
        )
    if results.images is not None:
        explained.append(
            f"KID and FID compare {results.images.num_generated:,} generated images with {results.images.num_real:,} "
            f"of the target, by {results.images.features}."
        )
    return " ".join(explained)


def _distance_table(results: Results) -> Table:
    found = [
        metric
        for one in results.statistics.values()
        for distance in one.distances
        if (metric := statistic_metric(one, distance)) is not None
    ]
    found += [metric for metric in _image_metrics(results) if metric is not None]
    names = [name for name in COLUMN_ORDER if any(name in one.estimates for one in found)]
    rows: list[list[Cell | str]] = [
        [one.name, *(estimate_cell(one.estimates.get(name)) for name in names)] for one in found
    ]
    return Table(["", *(ROW_TITLES[name] for name in names)], rows)
