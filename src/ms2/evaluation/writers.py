"""Write what was measured: files in the run's folder, loggers, and lines on the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor

from ms2.core.files import write_text
from ms2.core.images import image_grid
from ms2.evaluation.evaluation import Measurements
from ms2.evaluation.examples import Example, images_by_row, save_examples
from ms2.evaluation.plots import summary_figure
from ms2.evaluation.rule_changes import plot_rule_changes, to_csv, to_rows
from ms2.metrics.results import (
    LEARNED,
    NOISE_FLOOR,
    PRIOR,
    ROW_TITLES,
    VISIBLE,
    HistogramResult,
    Results,
    mean_tv,
    save_histograms,
    save_results,
    summary_key,
)

Figures = dict[str, UInt8[np.ndarray, "_ _ 3"]]
"""Figures by name."""
SHOWN_DISTANCES = ("tv", "w1")
"""Distances that are printed at the end of a run."""


def draw_figures(measurements: Measurements, name: str) -> Figures:
    """Draw the summary and the rule changes of a run with this name."""
    results = measurements.results
    grids = images_by_row(measurements.examples)
    return {
        "summary": summary_figure(name, measurements.histograms, grids, results.statistics),
        "rule_changes": plot_rule_changes(measurements.rule_changes, f"{name}: rule changes"),
    }


def write_files(folder: Path, measurements: Measurements, figures: Figures, card: str) -> None:
    """Write ``metrics.json``, ``histograms.json``, ``rule_changes.csv``, figures, ``examples/``, and ``README.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.md", card)
    for name, pixels in figures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    write_text(folder / "rule_changes.csv", to_csv(measurements.rule_changes))
    save_histograms(folder / "histograms.json", measurements.histograms)
    save_examples(folder / "examples", measurements.examples)
    save_results(folder / "metrics.json", measurements.results)  # last: its presence says that a run was measured


def log_results(logger: Logger, measurements: Measurements, figures: Figures) -> None:
    """Log all numbers of the summary but seconds; to Weights & Biases these, figures and the table of rule changes."""
    summary = measurements.results.summary
    numbers = {key: value for key, value in summary.items() if not key.startswith("seconds_") and math.isfinite(value)}
    logger.log_metrics({f"final/{key}": float(value) for key, value in numbers.items()})
    if isinstance(logger, WandbLogger):
        logger.experiment.summary.update({key: value for key, value in summary.items() if key.startswith("seconds_")})
        for name, pixels in figures.items():
            logger.log_image(name, [pixels])
        rows = to_rows(measurements.rule_changes)
        if rows:
            logger.log_table("rule changes", list(rows[0]), [list(row.values()) for row in rows])


def preview_media(examples: dict[str, list[Example]], histograms: Sequence[HistogramResult]) -> dict[str, Any]:
    """Convert images and histograms to media of Weights & Biases."""
    import wandb

    media: dict[str, Any] = {
        f"images/{row}": wandb.Image(image_grid(images)) for row, images in images_by_row(examples).items()
    }
    for histogram in histograms:
        for row, share in histogram.shares.items():
            edges = np.arange(len(share) + 1) - 0.5
            media[f"histograms/{histogram.title}/{row}"] = wandb.Histogram(np_histogram=(np.asarray(share), edges))
    return media


def score_histogram(score: Float[Tensor, " n"]) -> dict[str, Any]:
    """Convert the scores of a training step to a histogram of Weights & Biases."""
    import wandb

    return {"train/score_histogram": wandb.Histogram(score.tolist())}


def result_lines(results: Results) -> list[str]:
    """Format the main distances, learned and prior, as lines for the terminal."""
    in_table = {name for one in in_both(results) for name in (one, VISIBLE + one)}
    distances = [
        (summary_key(f"{name}_{statistic.main}"), rows[LEARNED].value, rows[PRIOR].value)
        for name, statistic in results.statistics.items()
        for rows in [statistic.distances[statistic.main]]
        if statistic.main in SHOWN_DISTANCES and name not in in_table
    ]
    compared = [f"{key} {learned:.3g} (prior {prior:.3g})" for key, learned, prior in distances]
    lines = table_of_both(results) + [", ".join(compared)] * bool(compared)
    lines = lines or ["no truth of the target was read, so no distances of structure were measured"]
    if results.readings is not None:
        number, objects = results.readings.num_images, results.readings.objects
        read = ", ".join(f"{ROW_TITLES[row]} {mean:.2f}" for row, mean in objects.items())
        lines.append(f"objects per image as the extractor reads them (estimates, {number:,} images each): {read}")
    if results.images is not None:
        images = [
            f"{name.upper()} {rows[LEARNED].value:.4g} (prior {rows[PRIOR].value:.4g})"
            for name, rows in results.images.distances.items()
        ]
        lines.append(f"{', '.join(images)} by {results.images.features}")
    if results.not_read:
        lines.append(f"not read in images, so that the prior's numbers are kept: {', '.join(results.not_read)}")
    return lines


def in_both(results: Results) -> list[str]:
    """Return the names of the statistics whose total variation was measured of structure and of what can be seen."""
    return [
        name for name, one in results.structure.items() if VISIBLE + name in results.visible and "tv" in one.distances
    ]


def table_of_both(results: Results) -> list[str]:
    """Format the total variation of structure beside that of what can be seen of it; empty if that was not measured."""
    rows: dict[str, list[Mapping[str, float]]] = {}
    for name in in_both(results):
        both = results.structure[name], results.visible[VISIBLE + name]
        rows[name] = [{row: one.value for row, one in each.distances["tv"].items()} for each in both]
    means = mean_tv(results.structure), mean_tv(results.visible)
    if all(means):
        rows["mean of classes"] = list(means)
    shown = (LEARNED, PRIOR, NOISE_FLOOR)
    width = max(map(len, rows), default=0)
    titles = f"{'':{width}}{'TV of what there is':>39}{'TV of what can be seen':>39}"
    head = " " * width + 2 * "".join(f"{ROW_TITLES[row]:>13}" for row in shown)
    lines = [
        f"{name:<{width}}" + "".join(f"{one[row]:13.3f}" for one in both for row in shown)
        for name, both in rows.items()
    ]
    return [titles, head, *lines] if rows else []
