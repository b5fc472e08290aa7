"""Readers of the files that a run leaves, as plain data under names that do not depend on today's keys."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ms2.metrics import Interval
from ms2.metrics.results import Estimate, Results, load_histograms, load_results

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
"""Elements of HTML that have no end."""
VARYING_SECTIONS = {"Time", "Reproduce", "Configuration", "Card", "Provenance", "Settings"}
"""Sections of reports whose numbers are times, versions and hashes, or stand in another section."""
DISTANCES = {"w1": "wasserstein"}
"""Distances whose recorded names are not today's."""
HISTORY = {
    "score": "train/score",
    "deviation of the score": "train/score_deviation",
    "entropy": "train/entropy",
    "rejection rate": "train/rejection_rate",
    "score of parameters": "parameters/score",
    "loss of the extractor": "extractor/loss",
    "loss of pretraining": "pretraining/nll",
    "loss of pretraining at validations": "pretraining/val_nll",
    "loss of the autoencoder": "autoencoding/loss",
}
"""Logged numbers besides distances at validations and the sharpness of kernels."""


def metrics(run: Path) -> tuple[Any, Any, Any]:
    """Read distances by statistic, distance and row; FID and KID; and metrics by stage."""
    found = load_results(run / "metrics.json")
    measured = {
        name: _distances(statistic.distances)
        | ({"mean": {_row(row): {"value": mean} for row, mean in statistic.means.items()}} if statistic.means else {})
        for name, statistic in found.statistics.items()
    }
    images: dict[str, Any] = {}
    if found.images is not None:
        images = _distances(found.images.distances)
        for distance, rows in found.images.changes.items():
            if "learned" in rows:
                images[distance]["change"] = _ends(rows["learned"])
        for rows in images.values():
            rows.setdefault("change", {"value": None, "low": None, "high": None})
    return measured, images, _by_stage(found)


def _distances(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    return {
        DISTANCES.get(distance, distance): {_row(row): _ends(one) for row, one in rows.items()}
        for distance, rows in found.items()
    }


def _row(name: str) -> str:
    return "best PCFG" if name == "best_pcfg" else name.replace("_", " ")


def _ends(one: Estimate) -> dict[str, Any]:
    return {"value": one.value} if one.low is None else {"value": one.value, "low": one.low, "high": one.high}


def _by_stage(results: Results) -> dict[str, Any]:
    """Nest names such as ``pretraining/nll``, and the probes of extractors."""
    found: dict[str, Any] = {}
    for stage in results.stages.values():
        for key, value in stage.metrics.items():
            first, _, last = key.partition("/")
            found.setdefault(first, {})[last.replace("_", " ")] = value
        for prior, probe in stage.probes.items():
            row: dict[str, Any] = {name.replace("_", " "): value for name, value in probe.scores.items()}
            if probe.count_error:
                row["bias"] = _by_number(probe.count_error)
            row |= {slot: {"bias": _by_number(errors)} for slot, errors in probe.slot_errors.items() if errors}
            found.setdefault("probe", {})[prior] = row
    return found


def _by_number(errors: Mapping[int, float]) -> dict[str, float]:
    return {str(n): error for n, error in errors.items()}


def history(run: Path) -> dict[str, Any]:
    """Read the logged numbers, step by step."""
    (log,) = run.glob("csv/*/metrics.csv")
    with log.open() as file:
        rows = list(csv.DictReader(file))
    keys = {what: key for what, key in HISTORY.items() if key in rows[0]}
    found: dict[str, Any] = {what: _column(rows, key) for what, key in keys.items()}
    found |= {"at validations": {}, "sharpness": {}}
    for key in rows[0]:
        if key.startswith("val/"):
            statistic, _, distance = key.removeprefix("val/").rpartition("_")
            distance = DISTANCES.get(distance, distance)
            found["at validations"].setdefault(statistic, {})[distance] = _column(rows, key)
        if key.startswith("kernel/"):
            found["sharpness"][key.removeprefix("kernel/").removesuffix("_sharpness")] = _column(rows, key)
    return found


def _column(rows: list[dict[str, str]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row[key]]


def histograms(run: Path) -> dict[str, Any]:
    """Read the histograms of a run."""
    found = load_histograms(run / "histograms.json")
    return {one.name: {"title": one.title, "shares": one.shares, "bins": _bins(one.bins)} for one in found}


def _bins(names: Sequence[str]) -> Sequence[Any]:
    """Return the names of bins, as numbers where they are values of an attribute: these vary slightly by processor."""
    return [float(name) for name in names] if any("." in name for name in names) else names


def rule_changes(run: Path) -> dict[str, list[float]]:
    """Read the probability of each rule at each place, before and after learning."""
    with (run / "rule_changes.csv").open() as file:
        return {row["label"]: [float(row["before"]), float(row["after"])] for row in csv.DictReader(file)}


def comparison_parts(found: Mapping[str, Interval]) -> Iterator[tuple[str, str, Interval]]:
    """Sort the measurements of a row by kind: AP by class, distances by statistic."""
    for key, interval in found.items():
        first, _, second = key.partition(" ")
        yield (first, second, interval) if first == "AP" else (second or first, first if second else "images", interval)


class Page(HTMLParser):
    """Read the sections of a report: headings and numbers, without times, versions and hashes."""

    NUMBER = re.compile(r"(?<![\w.])[+−-]?\d+(?:\.\d+)?(?![\w.])")

    def __init__(self) -> None:
        super().__init__()
        self.sections: dict[str, dict[str, Any]] = {}
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside, text = set(self.open), data.strip()
        if not text or inside & {"script", "style", "svg", "pre", "code", "title"}:
            return
        if "h2" in inside:
            self.sections[text] = {"headings": [], "numbers": []}
        elif self.sections:
            title, section = list(self.sections.items())[-1]
            recorded = title not in VARYING_SECTIONS
            if inside & {"h3", "h4"} or (recorded and inside & {"th", "figcaption"} and re.search("[a-z]", text)):
                section["headings"].append(self.NUMBER.sub("#", text))
            if recorded:
                section["numbers"] += [float(found.replace("−", "-")) for found in self.NUMBER.findall(text)]
