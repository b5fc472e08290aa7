"""Downstream comparison: average precision of detectors trained on images of each row, with equal budgets.

These are the numbers of the paper's Tables 1 and 2.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback

from ms2.core.errors import UserError
from ms2.core.settings import fingerprint, settings_of, source_fingerprint
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import Executor, generate
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import LabelledSet
from ms2.datasets.plan import Plan
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.evaluation.detectors.compared_run import PRIOR_TITLE, ComparedRun, check_same_rows, open_mixed_runs, open_run
from ms2.evaluation.detectors.data_set_distances import image_distances, structure_distances, target_features
from ms2.evaluation.detectors.detector import Detector
from ms2.evaluation.detectors.real_images import REAL, bound_images, bound_note, images_to_test_on
from ms2.evaluation.detectors.rows import check_shares, row_folder, row_stages, train_row
from ms2.evaluation.detectors.training import evaluate_detector
from ms2.metrics.average_precision import KittiAP
from ms2.metrics.comparison import (
    ComparisonResult,
    load_comparison,
    markdown_table,
    notes_of,
    object_numbers,
    save_comparison,
    summarise,
)
from ms2.metrics.intervals import Interval
from ms2.models.shares import Mix, whole_weights

AP_RESAMPLES = 20
"""Bootstrap resamples of an average precision, whose interval is not shown: seeds give the intervals."""
MakeProgressBar = Callable[[str], Callback]
"""Makes a progress bar with a title."""


def compare_rows(
    run: ComparedRun,
    seed: int,
    budget: DetectorBudget,
    folder: Path,
    workers: int | None = None,
    device: str = "cpu",
    progress_bar: MakeProgressBar | None = None,
    executor: Executor = "processes",
) -> ComparisonResult:
    """Train and evaluate one detector per row, with one seed.

    Data sets and detectors that exist already are used again.

    Args:
        run: The run.
        seed: Seed of data sets and detectors.
        budget: Training and test budget of each row.
        folder: Where data sets and detectors are written.
        workers: Processes that generate, one by default; or blocks of images at a time of a Ray cluster.
        device: Device to sample and to train on.
        progress_bar: Makes the progress bars of training and testing.
        executor: What generates the data sets.

    Raises:
        UserError: If there are no labelled images to test on, or too few images or steps.
    """
    world, place = next(iter(run.rows.values())).model.world, folder / f"seed{seed}"
    check_shares(budget, len(row_stages(PRIOR_TITLE, list(run.rows), budget.fine_tune_previous)))
    truth = run.target.truth_if_read(run.evaluate_labels)
    test, notes = images_to_test_on(run.target, world, budget)
    sets: dict[str, LabelledSet] = {}
    if budget.real_bound:
        bound = bound_images(run.target, test.categories, budget, seed)
        notes += (bound_note(bound),)
    if run.target.annotated and truth is None:
        notes += ("Distances of structure to the target's labels are shown with --evaluate_labels true.",)
    real = None if run.image_distances is None else target_features(run.image_distances, run.target, device)
    jobs = {title: _data_job(run, title, test.categories, budget, seed, place, device) for title in run.rows}
    for title, job in jobs.items():
        generate(job, workers, executor=executor)
        sets[title] = GeneratedSet(job.root, test.categories, masks="mask" in budget.detector, amodal=test.amodal)
    if budget.real_bound:
        sets[REAL] = bound
    found: dict[str, dict[str, float]] = {}
    num_objects: dict[str, int] = {}  # the same for all rows, which are tested on the same images
    for title in sets:
        trainer = _trainer(title, seed, device, progress_bar)
        detector = train_row(title, sets, budget, seed, place, trainer)
        precisions = _average_precision(detector, test, seed, trainer)
        num_objects |= {name: ap.num_objects for name, ap in precisions.items() if isinstance(ap, KittiAP)}
        found[title] = {name: ap.value for name, ap in precisions.items()}
    for title, job in jobs.items():
        if truth is not None:
            found[title] |= structure_distances(job, truth, run.target.annotated, run.statistics)
        if run.image_distances is not None and real is not None:
            found[title] |= image_distances(run.image_distances, sets[title], world.renderer.channels, real, device)
    shared = settings_of(vars(budget) if run.mix is None else vars(budget) | {"mix": run.mix})
    return ComparisonResult(seed, found, shared, num_objects, notes)


def _data_job(
    run: ComparedRun, title: str, classes: tuple[str, ...], budget: DetectorBudget, seed: int, place: Path, device: str
) -> Job:
    """Return the job that generates a row's training images."""
    opened = run.rows[title]
    grammar = opened.model.world.grammar
    # where the target is annotated, structure is counted by labels, of undetected classes too
    labelled = tuple(name for name in grammar.classes if name in grammar.terminals) if run.target.annotated else classes
    plan = Plan(num_scenes=budget.num_train_images, seed=seed, classes=labelled, formats=())
    return Job(opened, plan, row_folder(place, title) / "data", device)


def _trainer(title: str, seed: int, device: str, progress_bar: MakeProgressBar | None) -> dict[str, Any]:
    """Return the arguments of training and testing a row's detector."""
    return {
        "accelerator": "gpu" if torch.device(device).type == "cuda" else "cpu",
        "progress": progress_bar is not None,
        "callbacks": [] if progress_bar is None else [progress_bar(f"detector, seed {seed}, {title}")],
    }


def _average_precision(detector: Detector, test: LabelledSet, seed: int, trainer: Any) -> dict[str, Interval]:
    """AP at an overlap of 0.5 by class, and their mean, or by KITTI's levels; not of classes without objects."""
    found = evaluate_detector(detector, test, test.protocol, seed=seed, resamples=AP_RESAMPLES, **trainer)
    shown = {name: ap for name, ap in found.items() if len(detector.categories) > 1 or name != "mean"}
    return {f"AP {name}": ap for name, ap in shown.items() if math.isfinite(ap.value)}


def comparison_folder(folder: Path, run: ComparedRun, budget: DetectorBudget) -> Path:
    """Return a comparison's folder in the run's, named by a hash of budget, weights, target and metrics."""
    hashes = [opened.fingerprints() for opened in run.rows.values()]
    target = run.target.fingerprint(), source_fingerprint(run.target.hidden)
    measured = run.statistics, run.image_distances, run.evaluate_labels
    return folder / "compare" / fingerprint(vars(budget), hashes, *target, *measured)


def compare_runs(
    runs: Sequence[str],
    seeds: Sequence[int],
    budget: DetectorBudget,
    arguments: list[str],
    workers: int | None = None,
    device: str = "cpu",
    progress_bar: MakeProgressBar | None = None,
    mix: Mix | None = None,
    executor: Executor = "processes",
) -> tuple[dict[str, dict[str, Interval]], str]:
    """Compare the rows of a run or of a mixture of runs over several seeds, or of several runs with a seed each.

    Args:
        runs: Folders of runs.
        seeds: Seeds; with several runs that are not mixed, as many, one each.
        budget: Training and test budget of each row.
        arguments: More settings of the runs.
        workers: Processes that generate, one by default; or blocks of images at a time of a Ray cluster.
        device: Device to sample and to train on.
        progress_bar: Makes the progress bars of training and testing.
        mix: To mix the runs, ``even`` or the weight of each; what is measured is kept in the last one's folder.
        executor: What generates the data sets.

    Returns:
        `summarise` of all results, and its Markdown table.

    Raises:
        UserError: If there are several runs, but another number of seeds, or they have not learned the same parts, or
            can't be mixed.
    """
    if mix is not None:
        whole_weights(mix, runs)  # for the error, before anything is opened
    if mix is not None and len(runs) > 1:
        opened = {runs[-1]: open_mixed_runs(runs, mix, arguments)}
        runs = runs[-1:]
    elif len(runs) in (1, len(seeds)):
        opened = {run: open_run(run, arguments) for run in dict.fromkeys(runs)}
    else:
        raise UserError(f"{len(runs)} runs need as many --seeds, one each, not {len(seeds)}, or --mix even to be mixed")
    check_same_rows(opened)
    results = []
    for name, seed in zip(list(runs) * (len(seeds) // len(runs)), seeds, strict=True):
        folder = comparison_folder(Path(name), opened[name], budget)
        file = folder / f"seed{seed}.json"
        if not file.exists():
            result = compare_rows(opened[name], seed, budget, folder, workers, device, progress_bar, executor)
            save_comparison(file, result)
        results.append(load_comparison(file))
    summary = summarise(results)
    return summary, markdown_table(summary, object_numbers(results), notes_of(results))
