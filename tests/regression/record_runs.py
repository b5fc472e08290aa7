"""Fixed-seed numbers of small runs: what they log, measure and learn; and of their reports and comparisons."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from helpers import CONFIGS, SLIGHT, fit, ms2, rng
from record_sets import WORLDS, describe, generate
from recording import Tolerance, rows_of, scenes_as_rows
from run_files import Page, comparison_parts, histograms, history, metrics, rule_changes

from ms2.evaluation.detectors.comparison import DetectorBudget, compare_runs
from ms2.models.opening import open_model

LONGER = {"trainer__max_steps": 8, "trainer__val_check_interval": 4, "extractor__max_steps": 6}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": (
        "multimnist_quick",
        LONGER
        | {
            "evaluation__image_distances__features": SLIGHT,
            "evaluation__image_distances__num_images": 12,
            "evaluation__image_distances__max_target_images": 20,
        },
    ),
    "digits as in the paper": ("multimnist_paper", {}),
    "digits with parameters": ("multimnist_parameters", LONGER),
    "cars with parameters": ("aerial2d_parameters", {}),
    "one digit": ("digits_translated", LONGER),
}
"""Runs: configuration, and settings that override those of `helpers.command`."""
RUN_SETS = {
    "learned": ["--where", "3 >= 1"],
    "learned structure": ["--parameters", "prior", "--classes", "3", "8"],
    "learned parameters": ["--structure", "prior"],
}
"""Arguments of `ms2 generate` after the run."""
BUDGET = DetectorBudget(num_train_images=12, train_steps=20, num_test_images=6, batch_size=4, classes=("3", "8"))
RUNS_FOLDER = tempfile.TemporaryDirectory()
"""Folder of the runs, which several sections use."""


@cache
def run_of(name: str) -> Path:
    """Complete a small run, once per process, and return its folder, which is not to be changed."""
    config, settings = RUNS[name]
    title = name.replace(" ", "_")
    # in a folder of its own, so that no run reuses stages of another
    return fit(Path(RUNS_FOLDER.name) / title, title, config=CONFIGS / f"{config}.yaml", **settings)


def structure_runs(_: Path) -> dict[str, Any]:
    """Train structure models of digits."""
    return {name: describe_run(run_of(name)) for name in RUNS if not _learns_parameters(name)}


def parameter_runs(_: Path) -> dict[str, Any]:
    """Train parameter models, with structure models and alone."""
    return {name: describe_run(run_of(name)) for name in RUNS if _learns_parameters(name)}


def _learns_parameters(name: str) -> bool:
    return name not in ("digits", "digits as in the paper")


def describe_run(run: Path) -> dict[str, Any]:
    """Read what a run has measured and logged, and sample scenes of what it has learned."""
    measured, images, stages = metrics(run)
    model = open_model(str(run)).model
    rules = model.derivations(12, rng()).rules
    scenes = model.scenes(rules[:4], rng())
    return {
        "metrics": measured,
        "image distances": images,
        "stages": stages,
        "history": history(run),
        "histograms": histograms(run),
        "rule changes": rule_changes(run),
        "derivations": rows_of(rules, model.world.grammar.num_rules),
        "scenes": scenes_as_rows(scenes, model.world.classes),
    }


def run_data_sets(folder: Path) -> dict[str, Any]:
    """Generate labelled images of a run, with both of its models and with one of them."""
    found = {}
    for name, arguments in RUN_SETS.items():
        root = folder / name.replace(" ", "_")
        generate(root, [str(run_of("digits with parameters")), *arguments], "coco")
        found[name] = describe(root)
    return found


def comparison(folder: Path) -> dict[str, Any]:
    """Compare detectors trained on data of the prior and of a run."""
    run = shutil.copytree(run_of("digits"), folder / "digits")
    summary, text = compare_runs([str(run)], [0], BUDGET, [])
    rows: dict[str, Any] = {}
    for row, measured in summary.items():
        rows[row] = {}
        for kind, what, interval in comparison_parts(measured):
            rows[row].setdefault(kind, {})[what] = interval
    return {"rows": rows, "table": [line.split(" | ")[0] for line in text.splitlines()]}


def report(folder: Path) -> dict[str, Any]:
    """Write the reports of a run and of a data set."""
    run = run_of("digits with parameters")
    name, arguments = next(iter(WORLDS.items()))
    generate(folder / name, arguments, "coco")
    found = {}
    for what, place in (("run", run), ("data set", folder / name)):
        path, page = folder / "page.html", Page()
        ms2(["report", str(place), "--output", str(path)])
        page.feed(path.read_text())
        found[what] = page.sections
    return found


LEARNED = Tolerance(1e-3, 1e-3)
"""Tolerance of what training changes."""
SMALL = Tolerance(5e-3, 2e-5)
"""Tolerance of small numbers that training changes."""
RUN = {
    "score": SMALL,
    "deviation of the score": SMALL,
    "sharpness": SMALL,
    "score of parameters": Tolerance(0.02, 1e-4),
    "bins": Tolerance(2e-3, 0.02),
    "fid": SMALL,
    "kid": Tolerance(5e-3, 2e-6),
}
