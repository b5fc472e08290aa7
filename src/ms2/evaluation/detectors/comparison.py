"""Downstream comparison: average precision of detectors trained on images of each row, with equal budgets.

These are the numbers of the paper's Tables 1 and 2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback

from ms2.core.bounds import BatchSize, PositiveFloat, PositiveInt, check_arguments
from ms2.core.errors import UserError
from ms2.core.paths import Weights
from ms2.core.settings import fingerprint, source_fingerprint
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import LabelledSet
from ms2.datasets.plan import Plan
from ms2.evaluation.detectors.compared_run import ComparedRun, check_same_rows, open_mixed_runs, open_run
from ms2.evaluation.detectors.data_set_distances import image_distances, structure_distances, target_features
from ms2.evaluation.detectors.detector import Detector, load_detector
from ms2.evaluation.detectors.training import evaluate_detector, train_detector
from ms2.metrics.average_precision import KittiAP
from ms2.metrics.comparison import (
    ComparisonResult,
    load_comparison,
    markdown_table,
    object_numbers,
    save_comparison,
    summarise,
)
from ms2.metrics.intervals import Interval
from ms2.models.checkpoints import CheckpointError
from ms2.models.shares import Mix, whole_weights
from ms2.targets.base import Target

AP_RESAMPLES = 20
"""Bootstrap resamples of an average precision, whose interval is not shown: seeds give the intervals."""
MakeProgressBar = Callable[[str], Callback]
"""Makes a progress bar with a title."""


@dataclass(frozen=True)
class DetectorBudget:
    """Training and test budget, the same for every row.

    Args:
        num_train_images: Number of training images.
        train_steps: Number of training steps.
        num_test_images: Number of test images, if the test set is rendered.
        classes: Classes to detect; by default the grammar's terminals.
        detector: Architecture of the detector, see `ms2.evaluation.detectors.architectures`.
        backbone_weights: Initial weights of the backbone; None for random ones.
        batch_size: Images per step.
        lr: Peak learning rate.
        fine_tune_previous: Whether each row's detector is fine-tuned from the previous row's, as the paper's are.
    """

    num_train_images: PositiveInt = 1000
    train_steps: PositiveInt = 400
    num_test_images: PositiveInt = 500
    classes: tuple[str, ...] | None = None
    detector: str = "fcos_resnet18_fpn"
    backbone_weights: Weights = None
    batch_size: BatchSize = 8
    lr: PositiveFloat = 1e-3
    fine_tune_previous: bool = False

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self), "budget of the detectors")


def compare_rows(
    run: ComparedRun,
    seed: int,
    budget: DetectorBudget,
    folder: Path,
    workers: int = 1,
    device: str = "cpu",
    progress_bar: MakeProgressBar | None = None,
) -> ComparisonResult:
    """Train and evaluate one detector per row, with one seed.

    Data sets and detectors that exist already are used again.

    Args:
        run: The run.
        seed: Seed of data sets and detectors.
        budget: Training and test budget of each row.
        folder: Where data sets and detectors are written.
        workers: Processes that generate.
        device: Device to sample and to train on.
        progress_bar: Makes the progress bars of training and testing.

    Raises:
        UserError: If the target has no labelled images.
    """
    grammar = next(iter(run.rows.values())).model.world.grammar
    terminals = tuple(name for name in grammar.classes if name in grammar.terminals)
    classes = budget.classes or terminals
    # where the target is annotated, structure is counted by labels, of undetected classes too
    labelled = terminals if run.target.annotated else classes
    test = _test_set(run.target, budget, classes)
    real = None if run.image_distances is None else target_features(run.image_distances, run.target, device)
    found: dict[str, dict[str, float]] = {}
    num_objects: dict[str, int] = {}  # the same for all rows, which are tested on the same images
    previous: Path | None = None
    for title, opened in run.rows.items():
        place = folder / f"seed{seed}" / title.replace(" ", "_")
        plan = Plan(num_scenes=budget.num_train_images, seed=seed, classes=labelled, formats=())
        job = Job(opened, plan, place / "data", device)
        generate(job, workers)
        data = GeneratedSet(place / "data", classes, masks="mask" in budget.detector, amodal=test.amodal)
        trainer: dict[str, Any] = {
            "accelerator": "gpu" if torch.device(device).type == "cuda" else "cpu",
            "progress": progress_bar is not None,
            "callbacks": [] if progress_bar is None else [progress_bar(f"detector, seed {seed}, {title}")],
        }
        path = place / "detector.pt"
        detector = _trained(data, budget, seed, path, previous if budget.fine_tune_previous else None, trainer)
        previous = path
        precisions = _average_precision(detector, test, seed, trainer)
        num_objects |= {name: ap.num_objects for name, ap in precisions.items() if isinstance(ap, KittiAP)}
        found[title] = {name: ap.value for name, ap in precisions.items()}
        found[title] |= structure_distances(job, run.target, run.statistics)
        if run.image_distances is not None and real is not None:
            channels = opened.model.world.renderer.channels
            found[title] |= image_distances(run.image_distances, data, channels, real, device)
    shared = vars(budget) if run.mix is None else vars(budget) | {"mix": run.mix}
    return ComparisonResult(seed, found, shared, num_objects)


def _test_set(target: Target, budget: DetectorBudget, classes: tuple[str, ...]) -> LabelledSet:
    """Return labelled images of the target's distribution that were not learned from, if there are any."""
    found = target.labelled_set(classes, num_held_out=budget.num_test_images)
    if found is None:
        raise UserError(
            f"the target's images have no labels ({type(target).__name__}), so no detector can be measured on them: "
            "compare runs whose target is Synthetic or Kitti"
        )
    return found


def _trained(
    data: LabelledSet, budget: DetectorBudget, seed: int, path: Path, fine_tune_from: Path | None, trainer: Any
) -> Detector:
    try:
        return load_detector(path)
    except CheckpointError:
        pass  # it is to be trained
    detector = Detector(
        data.categories,
        architecture=budget.detector,
        backbone_weights=budget.backbone_weights,
        fine_tune_from=fine_tune_from,
        max_steps=budget.train_steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        seed=seed,
    )
    train_detector(detector, data, path, **trainer)
    return detector


def _average_precision(detector: Detector, test: LabelledSet, seed: int, trainer: Any) -> dict[str, Interval]:
    """AP at an overlap of 0.5 by class, and their mean, or by KITTI's levels; not of classes without objects."""
    found = evaluate_detector(detector, test, test.protocol, seed=seed, resamples=AP_RESAMPLES, **trainer)
    shown = {name: ap for name, ap in found.items() if len(detector.categories) > 1 or name != "mean"}
    return {f"AP {name}": ap for name, ap in shown.items() if math.isfinite(ap.value)}


def comparison_folder(folder: Path, run: ComparedRun, budget: DetectorBudget) -> Path:
    """Return a comparison's folder in the run's, named by a hash of budget, weights, target and metrics."""
    hashes = [opened.fingerprints() for opened in run.rows.values()]
    target = run.target.fingerprint(), source_fingerprint(run.target.hidden)
    return folder / "compare" / fingerprint(vars(budget), hashes, *target, run.statistics, run.image_distances)


def compare_runs(
    runs: Sequence[str],
    seeds: Sequence[int],
    budget: DetectorBudget,
    arguments: list[str],
    workers: int = 1,
    device: str = "cpu",
    progress_bar: MakeProgressBar | None = None,
    mix: Mix | None = None,
) -> tuple[dict[str, dict[str, Interval]], str]:
    """Compare the rows of a run or of a mixture of runs over several seeds, or of several runs with a seed each.

    Args:
        runs: Folders of runs.
        seeds: Seeds; with several runs that are not mixed, as many, one each.
        budget: Training and test budget of each row.
        arguments: More settings of the runs.
        workers: Processes that generate.
        device: Device to sample and to train on.
        progress_bar: Makes the progress bars of training and testing.
        mix: To mix the runs, ``even`` or the weight of each; what is measured is kept in the last one's folder.

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
            save_comparison(file, compare_rows(opened[name], seed, budget, folder, workers, device, progress_bar))
        results.append(load_comparison(file))
    summary = summarise(results)
    return summary, markdown_table(summary, object_numbers(results))
