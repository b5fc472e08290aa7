"""How a run went: curves of what was logged, and how well its features read images."""

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms2.report.curves import Curve, curves
from ms2.report.markup import Html, details, element, fragment, table
from ms2.report.reading import read_text
from ms2.report.results import number

NLL = "negative log-likelihood of scenes of the prior; none can be below the entropy of the prior"
CHARTS = (
    ("Score", r"train/(score)", "mean over a batch of log q(F) − log p(F): 0 where both are as frequent", False),
    ("Score of parameters", r"parameters/(score)", "the same, of the steps that learn parameters", False),
    ("Distance to the target", r"val/(.+)_tv", "total variation, at validations", True),
    ("Distance of attributes", r"val/(.+)_w1", "Wasserstein distance to the target's, each in its unit", True),
    ("Reward", r"parameters/(reward)", "accuracy of the task network on labelled images of the target", True),
    ("Deviation of the score", r"train/(score_deviation)", "within a batch: what the gradient is made of", True),
    ("Entropy", r"train/(entropy)", "of the structure model, in nats", False),
    ("Rejection rate", r"train/(rejection_rate)", "share of scenes that did not end in time: drawn again", True),
    ("Kernel sharpness", r"kernel/(.+)_sharpness", "mean exponent, by block of features; good are 0.5 to 10", True),
    ("Learning rate", r"train/(lr)", "", True),
    ("Loss of the extractor", r"extractor/(loss)", "before learning; its steps are its own", True),
    ("Loss of the autoencoder", r"autoencoding/(loss)", "before parameters are learned; its steps are its own", True),
    ("Pretraining", r"pretraining/(nll|val_nll|prior_entropy)", NLL, False),
)
"""Charts of what is logged: title, columns of the log, caption, and whether the axis starts at 0."""
LOGGED = r"train|extractor|pretraining|autoencoding|parameters"
"""Columns that a log of training has, and one of a test has not."""
NAMES = {"nll": "training", "val_nll": "held out", "prior_entropy": "entropy of the prior"}


def learning(logs: Mapping[str, Curve], titles: Mapping[str, str]) -> Html:
    """Curves of all that was logged.

    Args:
        logs: What `read_logs` gave.
        titles: Titles of statistics by name.
    """
    charts, left, names = [], dict(logs), {**titles, **NAMES}
    for title, pattern, caption, from_zero in CHARTS:
        found = [(key, match[1]) for key in logs if (match := re.fullmatch(pattern, key))]
        lines = [left.pop(key)._replace(name=names.get(name, name.replace("_", " "))) for key, name in found]
        if lines:
            charts.append(curves(title, lines, caption, from_zero))
    charts += [curves(name, [line]) for name, line in left.items()]
    note = "Pale lines are what was logged, strong ones are smoothed. Point at a chart, or walk along it by ← and →."
    return fragment(element("p", note, class_="note"), element("div", charts, class_="charts")) if charts else Html()


def read_logs(folder: Path) -> dict[str, Curve]:
    """What Lightning's CSV logger left of learning, by name.

    A run that was interrupted has a file for each of its parts; the later one counts where both have a step.

    Raises:
        UserError: If a file can't be read.
    """
    found: dict[str, dict[int, float]] = {}
    files = folder.glob("csv/version_*/metrics.csv")
    for path in sorted(files, key=lambda path: (len(path.parent.name), path.parent.name)):
        rows = csv.DictReader(read_text(path).splitlines())
        if not any(re.match(LOGGED, name) for name in rows.fieldnames or ()):
            continue  # of a test, which counts no steps
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
        if not re.match(r"(epoch|step)$|final/|realism/", name)
    }


def probed(stages: Mapping[str, Any]) -> Html:
    """What the features read off images of a known number of objects, from what the stages of a run found."""
    errors: dict[tuple[str, str], dict[int, float]] = {}  # mean error by true number, of each layout and slot
    numbers: dict[str, dict[str, str]] = {}
    for key, value in stages.items():
        found = re.fullmatch(r"probe/([^/]+)/(?:(.+)/)?(?:bias_(\d+)|(\w+))", key)
        if not found or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        numbers.setdefault(found[1], {})
        if found[3]:
            errors.setdefault((found[1], found[2] or ""), {})[int(found[3])] = value
        else:
            numbers[found[1]][found[4]] = number(value)
    if not numbers:
        return Html()
    lines = [
        Curve(layout, sorted(bias), [bias[n] for n in sorted(bias)])
        for (layout, slot), bias in errors.items()
        if not slot
    ]
    columns = {
        "presence_accuracy": "classes present, right",
        "count_accuracy": "number of objects, right",
        "class_error": "mean error of a class",
    }
    slots = sorted({slot for _, slot in errors if slot})
    worst = [[slot, *(_worst(errors.get((layout, slot), {})) for layout in numbers)] for slot in slots]
    note = (
        "Learning can get no better than the features count. A probe compares what they read off rendered images with "
        "what is in those, by layout."
    )
    caption = "mean, by the number that there are"
    return fragment(
        element("p", note, class_="note"),
        table(
            ["layout", *columns.values()], [[who, *(row.get(c, "") for c in columns)] for who, row in numbers.items()]
        ),
        element(
            "div",
            curves("Error of the number of objects", lines, caption, along="objects in the image"),
            class_="charts single",
        )
        if lines
        else None,
        details("largest mean error by class or place", table(["", *numbers], worst)) if worst else None,
    )


def _worst(errors: Mapping[int, float]) -> str:
    if not errors:
        return ""
    true = max(errors, key=lambda n: abs(errors[n]))
    return f"{errors[true]:+.2f} where there are {true}".replace("-", "−")
