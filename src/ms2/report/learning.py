"""Learning curves of a run, and the probe: the measured accuracy of its feature extractor."""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ms2.core.files import read_text
from ms2.core.formatting import format_number
from ms2.metrics.results import ProbeResult, Results
from ms2.report.charts import Chart
from ms2.report.line_charts import Curve, line_chart
from ms2.report.tables import Table


class LoggedChart(NamedTuple):
    """A chart of logged values.

    Attributes:
        title: Title of the chart.
        columns: Pattern of the log's columns; its group is the curve's name.
        caption: A line below the title.
        from_zero: Whether the axis starts at 0.
    """

    title: str
    columns: str
    caption: str
    from_zero: bool


CHARTS = tuple(
    LoggedChart(*one)
    for one in (
        ("Score", r"train/(score)", "batch mean of log q(F) − log p(F): 0 where both densities are equal", False),
        ("Score of parameters", r"parameters/(score)", "the score in steps that train parameters", False),
        ("Distance to the target", r"val/(.+)_tv", "total variation, at validations", True),
        ("Distance of attributes", r"val/(.+)_w1", "Wasserstein distance to the target, each in its unit", True),
        ("Reward", r"parameters/(reward)", "accuracy of the task network on labelled images of the target", True),
        ("Deviation of the score", r"train/(score_deviation)", "standard deviation of the score in a batch", True),
        ("Entropy", r"train/(entropy)", "of the structure model, in nats", False),
        ("Rejection rate", r"train/(rejection_rate)", "fraction of unfinished derivations, sampled again", True),
        ("Kernel sharpness", r"kernel/(.+)_sharpness", "mean negated exponent by feature block: 1 if H = d I", True),
        ("Learning rate", r"train/(lr)", "", True),
        ("Loss of the extractor", r"extractor/(loss)", "in its own steps, before learning", True),
        ("Loss of the autoencoder", r"autoencoding/(loss)", "in its own steps, before parameters are learned", True),
        (
            "Pretraining",
            r"pretraining/(nll|val_nll|prior_entropy)",
            "negative log-likelihood of scenes of the prior, bounded below by the prior's entropy",
            False,
        ),
    )
)
"""Charts of logged values in order; values that none of them shows have charts of their own below."""
TRAINING_COLUMN_PATTERN = r"(train|extractor|pretraining|autoencoding|parameters)/"
"""Pattern of columns that each log of training has, and no log of ``ms2 test``, whose values belong to no step."""
NON_CURVE_COLUMN_PATTERN = r"(epoch|step)$|final/"
"""Pattern of the columns that are not plotted as curves: counters, and values measured once after training."""
CURVE_NAMES = {"nll": "training", "val_nll": "held out", "prior_entropy": "entropy of the prior"}
SCORE_TITLES = {
    "presence_accuracy": "accuracy of class presence",
    "count_accuracy": "accuracy of the number of objects",
    "class_error": "mean absolute error of a class's count",
}


@dataclass(frozen=True)
class ProbeSection:
    """Accuracy of the feature extractor on rendered images of known content.

    Attributes:
        scores: Accuracies by parameter prior.
        chart: Mean error of the number of objects; None if unknown.
        largest_errors: Largest mean error of each counted class or position; None if unknown.
    """

    scores: Table
    chart: Chart | None
    largest_errors: Table | None


def learning_curves(logs: Mapping[str, Curve], titles: Mapping[str, str]) -> list[Chart]:
    """Build charts of all logged values.

    Args:
        logs: Curves by the log's column, see `read_logs`.
        titles: Titles of statistics by name.
    """
    charts, left, names = [], dict(logs), {**titles, **CURVE_NAMES}
    for title, pattern, caption, from_zero in CHARTS:
        found = [(key, match[1]) for key in logs if (match := re.fullmatch(pattern, key))]
        labels = [names.get(name, name.replace("_", " ")) for _, name in found]
        curves = [
            left.pop(key)._replace(name=label if labels.count(label) == 1 else f"{label} ({name})")
            for (key, name), label in zip(found, labels, strict=True)
        ]
        if curves:
            charts.append(line_chart(title, curves, caption, from_zero))
    return charts + [line_chart(name, [curve]) for name, curve in left.items()]


def read_logs(folder: Path) -> dict[str, Curve]:
    """Read the logged values of a run by column.

    A run that was interrupted has several logs; the later one counts where both have a step.

    Raises:
        UserError: If a file can't be read.
    """
    found: dict[str, dict[int, float]] = {}
    files = folder.glob("csv/version_*/metrics.csv")
    for path in sorted(files, key=lambda path: (len(path.parent.name), path.parent.name)):
        rows = csv.DictReader(read_text(path).splitlines())
        if not any(re.match(TRAINING_COLUMN_PATTERN, name) for name in rows.fieldnames or ()):
            continue
        for row in rows:
            for name, text in row.items():
                try:
                    step, value = int(row["step"]), float(text)
                except (KeyError, TypeError, ValueError):
                    continue  # an empty cell, or a line that was cut off
                if math.isfinite(value):
                    found.setdefault(str(name), {})[step] = value
    return {
        name: Curve(name, sorted(values), [values[step] for step in sorted(values)])
        for name, values in found.items()
        if not re.match(NON_CURVE_COLUMN_PATTERN, name)
    }


def probe_section(results: Results) -> ProbeSection | None:
    """Build tables and a chart of the feature extractor's accuracy; None if it was not measured."""
    probes = {prior: probe for stage in results.stages.values() for prior, probe in stage.probes.items()}
    if not probes:
        return None
    names = list(dict.fromkeys(name for probe in probes.values() for name in probe.scores))
    scores = [
        [prior, *(format_number(probe.scores[name]) if name in probe.scores else "" for name in names)]
        for prior, probe in probes.items()
    ]
    curves = [
        Curve(prior, sorted(errors), [errors[number] for number in sorted(errors)])
        for prior, probe in probes.items()
        if (errors := _finite(probe.count_error))
    ]
    return ProbeSection(
        Table(["parameter prior", *(SCORE_TITLES.get(name, name.replace("_", " ")) for name in names)], scores),
        line_chart("Error of the number of objects", curves, "mean, by the true number", x_label="objects in the image")
        if curves
        else None,
        _largest_errors(probes),
    )


def _largest_errors(probes: Mapping[str, ProbeResult]) -> Table | None:
    slots = list(dict.fromkeys(slot for probe in probes.values() for slot in probe.slot_errors))
    errors = [[_finite(probe.slot_errors.get(slot, {})) for probe in probes.values()] for slot in slots]
    rows = [[slot, *map(_largest, some)] for slot, some in zip(slots, errors, strict=True)]
    return Table(["", *probes], rows) if rows else None


def _largest(errors: Mapping[int, float]) -> str:
    if not errors:
        return ""
    number = max(errors, key=lambda n: abs(errors[n]))
    return f"{errors[number]:+.2f} at a true number of {number}".replace("-", "−")


def _finite(errors: Mapping[int, float]) -> dict[int, float]:
    return {number: error for number, error in errors.items() if math.isfinite(error)}
