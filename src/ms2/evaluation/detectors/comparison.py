"""What generated data is worth: a detector's average precision on equal budgets, row by row (Tables 1 and 2)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from pytorch_lightning import Callback
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ms2.core.errors import UserError
from ms2.core.parsing import get_nested
from ms2.core.settings import fingerprint
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import LabelledSet
from ms2.datasets.plan import Plan
from ms2.evaluation.detectors.detector import Detector, evaluate_detector, load_detector, train_detector
from ms2.evaluation.image_distances import ImageDistances
from ms2.metrics.comparison import ComparisonResult, load_comparison, save_comparison, summarise
from ms2.metrics.fid import fid
from ms2.metrics.histograms import compare_histograms
from ms2.metrics.intervals import Interval
from ms2.metrics.kid import kid
from ms2.metrics.statistics import ClassFrequency, ObjectCount, StructureStatistic, StructureVector
from ms2.metrics.vectors import compare_vectors
from ms2.models.checkpoints import CheckpointError
from ms2.models.opening import OpenedModel, build_model, find_configuration, parse_settings, scene_model_parser
from ms2.models.scene_model import LEARNED, LEARNED_PARAMETERS, LEARNED_STRUCTURE, PRIOR, Row
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target

Measured = dict[str, float]
Bar = Callable[[str], Callback]
"""Makes a progress bar with a title."""


@dataclass(frozen=True)
class Budget:
    """What every row may use.

    Args:
        num_scenes: Images to train on.
        steps: Steps of training.
        test_scenes: Images to test on, where they are rendered.
        classes: What is detected; by default the grammar's terminals.
        detector: Name of the detector's architecture, see `ms2.evaluation.detectors.detector`.
        weights: What its backbone begins with.
        batch_size: Images of a step.
        lr: Learning rate.
        progressive: Whether each row's detector goes on from the row before, as the paper's do, or starts anew.
    """

    num_scenes: int = 1000
    steps: int = 400
    test_scenes: int = 500
    classes: tuple[str, ...] | None = None
    detector: str = "fcos_resnet18_fpn"
    weights: str | None = None
    batch_size: int = 8
    lr: float = 1e-3
    progressive: bool = False


class Rows(NamedTuple):
    """A run as its rows draw from it, and what they are compared with.

    Attributes:
        name: The run's name.
        sources: By the row's title, where its scenes come from.
        target: The run's target.
        statistics: Whose distance to the target's is measured.
        realism: What FID and KID are measured with; None for neither.
    """

    name: str
    sources: dict[str, OpenedModel]
    target: Target
    statistics: Sequence[StructureStatistic]
    realism: ImageDistances | None


def open_rows(run: str, arguments: list[str] | None = None) -> Rows:
    """The rows of a run.

    Args:
        run: Its folder.
        arguments: More settings as on a command line.

    Raises:
        UserError: If it is no finished run.
    """
    found, name, weights = find_configuration(run)
    if weights is None:
        raise UserError(f"{run} has learned nothing to compare: name the folder of a run of 'ms2 fit'")
    reader = scene_model_parser("ms2 compare")
    reader.add_subclass_arguments(Target, "target")
    reader.link_arguments("world", "target.init_args.world", apply_on="instantiate")
    reader.add_argument("--statistics", type=list[StructureStatistic] | None)
    reader.add_argument("--image_distances", type=ImageDistances | None)
    model, evaluation = get_nested(found, "model"), get_nested(found, "evaluation")
    given = {
        "world": found["world"],
        "structure": model.get("structure"),
        "target": get_nested(found, "data", "target"),
    }
    given |= {key: evaluation[key] for key in ("statistics", "image_distances") if evaluation.get(key)}
    given |= {"parameters": model["parameters"]} if model.get("parameters") else {}
    plain, made = parse_settings(reader, given, arguments)
    ours = {key: plain[key] for key in ("world", "structure", "parameters") if plain.get(key)}
    return Rows(
        name,
        {title: build_model(ours, weights, name, row) for title, row in _learned(model).items()},
        made.target,
        made.statistics or [ObjectCount(), ClassFrequency()],
        made.image_distances,
    )


def _learned(model: dict[str, Any]) -> dict[str, Row]:
    """What is learned in each row, as a run's settings say."""
    rows = {"prior": PRIOR, "learned structure": LEARNED_STRUCTURE}
    if not model.get("parameters"):
        return rows
    if get_nested(model, "turns", "init_args").get("parameter_fraction") == 1:
        return {"prior": rows["prior"], "learned parameters": LEARNED_PARAMETERS}
    return rows | {"learned structure and parameters": LEARNED}


def measure_rows(
    rows: Rows,
    seed: int,
    budget: Budget,
    folder: Path,
    workers: int = 1,
    device: str = "cpu",
    bar: Bar | None = None,
) -> dict[str, Measured]:
    """Measure all rows with one seed.

    Data sets, detectors and results that are there already are used again.

    Args:
        rows: What to compare.
        seed: Seed of the data sets and of the detectors.
        budget: What each row may use.
        folder: Where data sets and detectors go.
        workers: Processes that generate.
        device: What to draw and to train on.
        bar: Shows how training and testing go on.

    Returns:
        The measurements of each row by its title.

    Raises:
        UserError: If nobody knows the labels of the target's images.
    """
    world = rows.sources["prior"].model.world
    every = tuple(name for name in world.grammar.classes if name in world.grammar.terminals)
    classes = budget.classes or every
    # structure is counted by labels where the target's was annotated: also that of classes that nobody detects
    labelled = every if rows.target.annotated else classes
    test = _test_set(rows.target, budget, classes)
    real = None if rows.realism is None else _features(rows.realism, _target_images(rows.target, rows.realism), device)
    found: dict[str, Measured] = {}
    before: Path | None = None
    for title, source in rows.sources.items():
        place = folder / f"seed{seed}" / title.replace(" ", "_")
        job = Job(
            source, Plan(num_scenes=budget.num_scenes, seed=seed, classes=labelled, formats=()), place / "data", device
        )
        generate(job, workers)
        data = GeneratedSet(place / "data", classes, masks="mask" in budget.detector, amodal=test.amodal)
        more: dict[str, Any] = {
            "accelerator": "gpu" if torch.device(device).type == "cuda" else "cpu",
            "progress": bar is not None,
        }
        more |= {"callbacks": [] if bar is None else [bar(f"detector, seed {seed}, {title}")]}
        path = place / "detector.pt"
        detector = _trained(data, budget, seed, path, before if budget.progressive else None, more)
        before = path
        found[title] = _precision(detector, test, seed, more) | _distances(rows, job)
        if rows.realism is not None and real is not None:
            ours = _features(rows.realism, _images(data, world.renderer.channels), device)
            found[title] |= {"FID": fid(ours, real), "KID": kid(ours, real)}
    return found


def _test_set(target: Target, budget: Budget, classes: tuple[str, ...]) -> LabelledSet:
    """Return labelled images of the target's distribution that were not learned from, if there are any."""
    found = target.labelled_set(classes, num_held_out=budget.test_scenes)
    if found is None:
        raise UserError(
            f"the target's images have no labels ({type(target).__name__}), so no detector can be measured on them: "
            "compare runs whose target is Synthetic or Kitti"
        )
    return found


def _trained(
    data: LabelledSet, budget: Budget, seed: int, path: Path, before: Path | None, more: dict[str, Any]
) -> Detector:
    try:
        return load_detector(path)
    except CheckpointError:
        pass  # it is still to be trained
    detector = Detector(
        data.categories,
        architecture=budget.detector,
        weights=budget.weights,
        fine_tune_from=before,
        max_steps=budget.steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        seed=seed,
    )
    train_detector(detector, data, path, **more)
    return detector


def _precision(detector: Detector, test: LabelledSet, seed: int, more: dict[str, Any]) -> Measured:
    """AP@0.5: of KITTI's levels, or the mean over classes."""
    found = evaluate_detector(detector, test, test.protocol, seed=seed, resamples=20, **more)
    shown = {name: ap for name, ap in found.items() if len(detector.categories) > 1 or name != "mean"}
    # a class of which the test set shows none has no AP
    return {f"AP {name}": ap.value for name, ap in shown.items() if math.isfinite(ap.value)}


def _distances(rows: Rows, job: Job) -> Measured:
    """Distance of a data set's structure to the target's, where that is known."""
    target, classes = rows.target, job.source.model.world.grammar.classes
    if target.truth is None:
        return {}
    scenes = _structures(job, target.annotated)
    found = {}
    for statistic in rows.statistics:
        ours, theirs = statistic.measure(scenes, classes).float(), statistic.measure(target.truth, classes).float()
        draw = torch.Generator().manual_seed(0)
        if not isinstance(statistic, StructureVector):
            found[f"{statistic.name} TV"] = compare_histograms(ours, theirs, generator=draw)["tv"].value
        else:
            found[f"{statistic.name} distance"] = compare_vectors(ours, theirs, generator=draw).value
    return found


def _structures(job: Job, annotated: bool) -> SceneBatch:
    """The scenes of a data set: all objects of the grammar, or those that somebody would annotate."""
    classes = job.source.model.world.grammar.classes
    rows, parents = [], []
    for record in job.records():
        things = [(thing.class_name, thing.parent) for thing in record.scene.objects]
        if annotated:
            things = [(label.category, -1) for label in record.labels]
        kept = [(classes.index(name), parent) for name, parent in things if name in classes]
        rows.append(torch.tensor([number for number, _ in kept], dtype=torch.long))
        parents.append(torch.tensor([parent for _, parent in kept], dtype=torch.long))
    pad = torch.nn.utils.rnn.pad_sequence
    return SceneBatch(pad(rows, True, -1), pad(parents, True, -1))


def _images(data: LabelledSet, channels: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
    for first in range(0, len(data), 50):
        yield torch.stack([data[i][0][:channels] for i in range(first, min(first + 50, len(data)))])


def _target_images(target: Target, realism: ImageDistances) -> Iterator[UInt8[Tensor, "b c h w"]]:
    for _, images in DataLoader(target.partition(limit=realism.max_target_images), realism.batch_size):
        yield images


@torch.no_grad()
def _features(realism: ImageDistances, images: Iterator[UInt8[Tensor, "b c h w"]], device: str) -> Float[Tensor, "n d"]:
    features = realism.features.to(device).eval()
    bar = tqdm(images, "embedding", leave=False, disable=None)
    return torch.cat([realism.select_block(features(batch.to(device) / 255)) for batch in bar])


# -- tables --------------------------------------------------------------------------------------------


def table(summary: dict[str, dict[str, Interval]]) -> str:
    """Markdown."""
    columns = list(next(iter(summary.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title, found in summary.items():
        cells = [
            f"{i.value:.3f} ± {(i.high - i.low) / 2:.3f}" if i.high > i.low else f"{i.value:.3f}"
            for i in found.values()
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def folder_of(run: Path, rows: Rows, budget: Budget) -> Path:
    """Where what is made for a comparison goes: another place for other budgets, weights, targets, or measures."""
    hashes = [source.fingerprints() for source in rows.sources.values()]
    return run / "compare" / fingerprint(vars(budget), hashes, rows.target.fingerprint(), rows.statistics, rows.realism)


def measure_runs(
    runs: Sequence[str],
    seeds: Sequence[int],
    budget: Budget,
    arguments: list[str],
    workers: int = 1,
    device: str = "cpu",
    bar: Bar | None = None,
) -> tuple[dict[str, dict[str, Interval]], str]:
    """Measure all rows with several seeds, or of several runs with a seed each.

    Args:
        runs: Folders of runs.
        seeds: Seeds; with several runs, as many, one each.
        budget: What each row may use.
        arguments: More settings of the runs.
        workers: Processes that generate.
        device: What to draw and to train on.
        bar: Shows how training and testing go on.

    Returns:
        `summarise` of all, and its Markdown table.

    Raises:
        UserError: If there are several runs, but another number of seeds, or they have not learned the same parts.
    """
    if len(runs) not in (1, len(seeds)):
        raise UserError(f"{len(runs)} runs need as many --seeds, one each, not {len(seeds)}")
    opened = {run: open_rows(run, arguments) for run in dict.fromkeys(runs)}
    titles = {run: ", ".join(rows.sources) for run, rows in opened.items()}
    if len(set(titles.values())) > 1:
        raise UserError(
            "runs that are compared together must have learned the same parts: "
            + "; ".join(f"{run} has {some}" for run, some in titles.items())
        )
    results = []
    for run, seed in zip(list(runs) * (len(seeds) // len(runs)), seeds, strict=True):
        rows = opened[run]
        folder = folder_of(Path(run), rows, budget)
        file = folder / f"seed{seed}.json"
        if not file.exists():
            measured = measure_rows(rows, seed, budget, folder, workers, device, bar)
            save_comparison(file, ComparisonResult(seed, measured, vars(budget)))
            DataSetFolder(folder).clean()
        results.append(load_comparison(file))
    summary = summarise(results)
    return summary, table(summary)
