"""Readers of the files that a run leaves, as plain data under names that do not depend on today's keys."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ms2.metrics import Interval
from ms2.report.markup import VOID

VARYING_SECTIONS = {"Time", "Reproduce", "Configuration", "Card", "Provenance", "Settings"}
"""Sections of reports whose numbers are times, versions and hashes, or stand in another section."""
STATISTIC_KEY = re.compile(
    "(?P<statistic>.+)_(?P<distance>tv|kl|wasserstein|distance|mean|w1)"
    "(?P<row>|_prior|_pcfg_oracle|_learned_structure|_learned_parameters|_target|_noise_floor)(?P<interval>_interval)?"
)
IMAGES_KEY = re.compile("(?P<statistic>)(?P<distance>kid|fid)(?P<row>|_prior|_change)(?P<interval>_interval)?")
ROWS = {"": "learned", "_pcfg_oracle": "best PCFG"}
DISTANCES = {"distance": "energy", "w1": "wasserstein"}
"""Rows and distances whose recorded names are not today's."""
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
    found = json.loads((run / "metrics.json").read_text())
    measured: dict[str, Any] = {}
    images: dict[str, Any] = {}
    for table, pattern in ((measured, STATISTIC_KEY), (images, IMAGES_KEY)):
        for key, value in found.items():
            match = pattern.fullmatch(key)
            if match is None:
                continue
            distance = DISTANCES.get(match["distance"], match["distance"])
            of = ROWS.get(match["row"], match["row"].strip("_").replace("_", " "))
            row = table.setdefault(match["statistic"], {}).setdefault(distance, {}).setdefault(of, {})
            if match["interval"]:
                row["low"], row["high"] = value or (None, None)
            else:
                row["value"] = value
    return measured, images.get("", {}), _by_stage(found["stages"])


def _by_stage(logged: Mapping[str, float]) -> dict[str, Any]:
    """Nest names such as ``probe/prior/bias_2`` and ``pretraining/nll``."""
    found: dict[str, Any] = {}
    for key, value in logged.items():
        *places, last = re.sub(r"bias_(\d+)$", r"bias/\1", key).split("/")
        here = found
        for place in places:
            here = here.setdefault(place, {})
        here[last.replace("_", " ")] = value
    return found


def history(run: Path) -> dict[str, Any]:
    """Read the logged numbers, step by step."""
    (log,) = run.glob("csv/*/metrics.csv")
    with log.open() as file:
        rows = list(csv.DictReader(file))
    keys = {what: key for what, key in HISTORY.items() if key in rows[0]}
    found: dict[str, Any] = {what: _column(rows, key) for what, key in keys.items()}
    found |= {"at validations": {}, "sharpness": {}}
    for key in rows[0]:
        if match := STATISTIC_KEY.fullmatch(key.removeprefix("val/")) if key.startswith("val/") else None:
            distance = DISTANCES.get(match["distance"], match["distance"])
            found["at validations"].setdefault(match["statistic"], {})[distance] = _column(rows, key)
        if key.startswith("kernel/"):
            found["sharpness"][key.removeprefix("kernel/").removesuffix("_sharpness")] = _column(rows, key)
    return found


def _column(rows: list[dict[str, str]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row[key]]


def histograms(run: Path) -> dict[str, Any]:
    """Read the histograms of a run."""
    found = json.loads((run / "histograms.json").read_text())
    return {one["name"]: {key: one[key] for key in ("title", "shares")} | {"bins": _bins(one["bins"])} for one in found}


def _bins(names: list[str]) -> list[Any]:
    """Return the names of bins, as numbers where they are values of an attribute: these vary slightly by processor."""
    return [float(name) for name in names] if any("." in name for name in names) else names


def rule_changes(run: Path) -> dict[str, list[float]]:
    """Read the probability of each rule at each place, before and after learning."""
    with (run / "moved.csv").open() as file:
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
