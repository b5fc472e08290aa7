"""Report of a run: results, learning curves and reproduction."""

import csv
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ms2.core.errors import UserError
from ms2.core.files import read_json, read_text
from ms2.core.formatting import format_duration
from ms2.core.parsing import get_nested
from ms2.datasets.labelled_set import path_inside
from ms2.metrics.results import (
    ROW_TITLES,
    HistogramResult,
    Results,
    StatisticResult,
    load_histograms,
    load_results,
)
from ms2.report.charts import Chart, duration_chart, histogram
from ms2.report.detectors import comparison_tables
from ms2.report.files import read_yaml
from ms2.report.gallery import Gallery, GalleryImage, build_gallery, bytes_per_image, data_uri, parse_label
from ms2.report.interval_charts import ChangeRow, rule_change_chart
from ms2.report.learning import learning_curves, probe_section, read_logs
from ms2.report.page import Fact, ReproduceSection, Section, drop_empty_facts, render_page
from ms2.report.results import main_metrics, readings_section, results_section, statistic_metric
from ms2.report.tables import Table

CHANGES_SHOWN, MAX_CHANGES = 16, 200
"""Rule changes that are shown, and that are on the page at all."""
MAX_FIGURE_BYTES = 900_000
"""A figure up to this size goes into the page as it is."""
NUM_HEADER_METRICS = 4
"""Number of metrics shown below the title."""
STAGE_TITLES = {
    "extractor": "feature extractor",
    "pretraining": "pretraining",
    "autoencoding": "autoencoder",
    "training": "learning",
}
"""Titles of a run's stages, in the order in which their times are shown; other stages are shown by name."""


class Figure(NamedTuple):
    """An image file of a run.

    Attributes:
        uri: The image as a data URI.
        description: What it shows.
    """

    uri: str
    description: str


@dataclass(frozen=True)
class RuleChangesSection:
    """Changes of rule probabilities.

    Attributes:
        chart: The largest changes.
        more: The next ones; None if there are no more.
        num_more: Their number.
        values: All of them as a table.
        left_out: How many are not on the page.
    """

    chart: Chart
    more: Chart | None
    num_more: int
    values: Table
    left_out: str


@dataclass(frozen=True)
class TimeSection:
    """Wall-clock times of a run's stages.

    Attributes:
        chart: Their chart.
        table: Their table.
        total: The command's time in total, as a sentence.
    """

    chart: Chart
    table: Table
    total: str


def report_run(folder: Path) -> str:
    """Write the report of a run.

    Raises:
        UserError: If its files can't be read, or there are no results and no logs yet.
    """
    results = _optional(folder / "metrics.json", load_results)
    histograms = _optional(folder / "histograms.json", load_histograms) or []
    config, logs, status = read_yaml(folder / "config.yaml"), read_logs(folder), folder / "run.json"
    if results is None and not logs:
        raise UserError(
            f"{folder} is the folder of a run that has neither results nor logs yet. Start it: "
            f"ms2 fit --config {folder / 'config.yaml'}"
        )
    statistics: Mapping[str, StatisticResult] = {} if results is None else results.statistics
    titles = {one.name: one.title for one in histograms} | {name: one.title for name, one in statistics.items()}
    changes = _rule_changes(folder)
    summary_figure = _figure(folder / "summary.png", "Histograms and images of prior, learned model and target")
    changes_figure = _figure(folder / "rule_changes.png", "Rule probabilities under the prior and the learned model")
    sections = [
        Section("Results", "sections/results.html", results and results_section(results)),
        Section("Readings", "sections/readings.html", results and readings_section(results)),
        Section("Histograms", "sections/charts.html", _histogram_charts(folder, histograms, statistics)),
        Section("Summary", "sections/figure.html", None if histograms else summary_figure),
        Section("Images", "sections/images.html", _images(folder)),
        Section("Detectors", "sections/detectors.html", comparison_tables(folder)),
        Section("Learning", "sections/learning.html", learning_curves(logs, titles)),
        Section("Rule changes", "sections/rule_changes.html", changes),
        Section("Rule changes", "sections/figure.html", None if changes else changes_figure),
        Section("Features", "sections/probe.html", results and probe_section(results)),
        Section("Time", "sections/time.html", results and _times(results)),
        Section("Reproduce", "sections/reproduce.html", _reproduce(folder, results)),
        Section("Configuration", "sections/source.html", _configuration(folder)),
    ]
    return render_page(
        "run.html",
        "run",
        str(config.get("name") or folder.resolve().name),
        sections,
        facts=_facts(results, config),
        finished=not status.exists() or read_json(status).get("finished") is not False,
        metrics=[] if results is None else main_metrics(results)[:NUM_HEADER_METRICS],
    )


def _facts(results: Results | None, config: Mapping[str, Any]) -> list[Fact]:
    facts = [
        Fact(name, str(get_nested(config, *path, "class_path") or "").rpartition(".")[2] or None)
        for name, path in (("world", ("world", "grammar")), ("target", ("data", "target")))
    ]
    max_steps = get_nested(config, "trainer", "max_steps") or None
    if results is None:
        return drop_empty_facts([*facts, Fact("steps", max_steps), Fact("seed", config.get("seed_everything"))])
    measured = results.measured_with
    total = results.seconds.get("total")
    return drop_empty_facts(
        [
            *facts,
            Fact("steps", measured.steps or max_steps),  # ms2 test takes none
            Fact("seed", measured.seed),
            Fact("scenes measured", f"{measured.num_scenes:,}"),
            Fact("duration", None if total is None else format_duration(total)),
            Fact("ms2", measured.versions.get("ms2")),
        ]
    )


def _optional(path: Path, load: Any) -> Any:
    return load(path) if path.exists() else None


# -- histograms, images and rule changes ---------------------------------------------------------------


def _histogram_charts(
    folder: Path, histograms: Sequence[HistogramResult], statistics: Mapping[str, StatisticResult]
) -> list[Chart]:
    charts = []
    for one in histograms:
        if not one.bins or any(len(shares) != len(one.bins) for shares in one.shares.values()):
            raise _foreign_file(folder / "histograms.json", folder, f"{one.title}: not as many shares as bins")
        if not all(math.isfinite(share) for shares in one.shares.values() for share in shares):
            raise _foreign_file(folder / "histograms.json", folder, f"{one.title}: a share that is not a number")
        statistic = statistics.get(one.name)
        caption = "" if statistic is None else _histogram_caption(statistic)
        ordered = all(re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", name) for name in one.bins)
        charts.append(histogram(one.title, one.bins, one.shares, caption, ordered))
    return charts


def _histogram_caption(statistic: StatisticResult) -> str:
    """The main distance (`StatisticResult.main`) of the learned model and of the prior."""
    metric = statistic_metric(statistic, statistic.main) if statistic.distances else None
    if metric is None:
        return ""
    prior = f", of the prior: {metric.prior}" if metric.prior else ""
    return f"{metric.distance} to the target: {metric.learned}{prior}"


def _images(folder: Path) -> Gallery | None:
    """Examples of prior, learned model and target."""
    examples = folder / "examples"
    index = examples / "examples.json"
    groups: dict[str, list[GalleryImage]] = {}
    try:
        found = read_json(index) if index.exists() else {}
        max_bytes = bytes_per_image(sum(map(len, found.values())))
        for row, some in found.items():
            groups[row] = []
            for i, one in enumerate(some):
                uri, size = data_uri(path_inside(examples, one["file"]), max_bytes)
                labels = None if one["labels"] is None else [parse_label(label) for label in one["labels"]]
                groups[row].append(GalleryImage(uri, size, labels, f"{ROW_TITLES.get(row, row)} {i + 1}"))
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _foreign_file(index, folder, f"{type(error).__name__}: {error}") from error
    return build_gallery(groups)


def _figure(path: Path, description: str) -> Figure | None:
    return Figure(data_uri(path, MAX_FIGURE_BYTES)[0], description) if path.exists() else None


def _rule_changes(folder: Path) -> RuleChangesSection | None:
    path = folder / "rule_changes.csv"
    rows = list(csv.DictReader(read_text(path).splitlines())) if path.exists() else []
    if path.exists() and not read_text(path):
        raise _foreign_file(path, folder, "it is empty")
    try:
        changes = [_change_row(row) for row in rows[:MAX_CHANGES]]
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign_file(path, folder, f"{type(error).__name__}: {error}") from error
    if not changes:
        return None
    shown, more = changes[:CHANGES_SHOWN], changes[CHANGES_SHOWN:]
    table = [[one.label, *one.texts] for one in changes]
    left_out = f"{len(rows) - MAX_CHANGES:,} smaller changes are in {path.name}." if len(rows) > MAX_CHANGES else ""
    return RuleChangesSection(
        rule_change_chart("Largest rule changes", shown),
        rule_change_chart("Further rule changes", more) if more else None,
        len(more),
        Table(["rule", "prior", "learned", "95 % interval", "reached per scene"], table),
        left_out,
    )


def _change_row(row: Mapping[str, str]) -> ChangeRow:
    before = _number(row["before"]) if row["before"] else None
    after, low, high = (_number(row[name]) for name in ("after", "after_low", "after_high"))
    return ChangeRow(
        row["label"], before, after, (low, high), (_number(row["visits_before"]), _number(row["visits_after"]))
    )


def _number(text: str) -> float:
    """Parse a number that a chart can show.

    Raises:
        ValueError: If it is none.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} cannot be shown")
    return number


def _foreign_file(path: Path, folder: Path, problem: str) -> UserError:
    return UserError(
        f"{path}: not what ms2 writes ({problem}). Write it again: ms2 test --config {folder / 'config.yaml'}"
    )


# -- times and reproduction ----------------------------------------------------------------------------


def _times(results: Results) -> TimeSection | None:
    seconds = {name: stage.seconds for name, stage in results.stages.items()}
    if "training" in results.seconds:
        seconds["training"] = results.seconds["training"]
    if not seconds:
        return None
    order = [name for name in dict.fromkeys([*STAGE_TITLES, *seconds]) if name in seconds]
    reused = [name for name in order if name in results.stages and results.stages[name].reused]
    titles = {name: STAGE_TITLES.get(name, name) for name in order}
    texts = {
        titles[name]: format_duration(seconds[name]) + (", reused from an earlier run" if name in reused else "")
        for name in order
    }
    chart = duration_chart(
        "Time", {titles[name]: seconds[name] for name in order}, texts, [titles[name] for name in reused]
    )
    total = results.seconds.get("total")
    text = "" if total is None else f"The command took {format_duration(total)} in total, with start-up and evaluation."
    return TimeSection(chart, Table(["", "time"], list(texts.items())), text)


def _reproduce(folder: Path, results: Results | None) -> ReproduceSection:
    commands, versions = {}, ""
    if results is not None:
        measured = results.measured_with
        versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
        if measured.command:
            commands["command of this run"] = f"ms2 {measured.command.partition(' ')[2]}"
    if (folder / "config.yaml").exists():
        config, name = shlex.quote(str(folder / "config.yaml")), shlex.quote(f"{folder.resolve().name}_again")
        commands |= {
            "repeat the run under another name": f"ms2 fit --config {config} --name {name}",
            "measure the last checkpoint again": f"ms2 test --config {config}",
            "images of the learned scenes": f"ms2 predict --config {config}",
        }
    commands["this page"] = f"ms2 report {shlex.quote(str(folder))}"
    return ReproduceSection(commands, versions)


def _configuration(folder: Path) -> Fact | None:
    path = folder / "config.yaml"
    return Fact(path.name, read_text(path)) if path.exists() else None
