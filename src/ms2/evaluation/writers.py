"""Write what was measured: files in the run's folder, loggers, and lines on the terminal."""

import math
from collections.abc import Sequence
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
    PRIOR,
    ROW_TITLES,
    HistogramResult,
    Results,
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


def write_files(folder: Path, measurements: Measurements, figures: Figures) -> None:
    """Write ``metrics.json``, ``histograms.json``, ``rule_changes.csv``, figures, and ``examples/``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in figures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    write_text(folder / "rule_changes.csv", to_csv(measurements.rule_changes))
    save_histograms(folder / "histograms.json", measurements.histograms)
    save_examples(folder / "examples", measurements.examples)
    save_results(folder / "metrics.json", measurements.results)  # last: its presence says that a run was measured


def log_results(logger: Logger, measurements: Measurements, figures: Figures) -> None:
    """Log all numbers of the summary but seconds; figures and the table of rule changes to Weights & Biases."""
    summary = measurements.results.summary
    numbers = {key: value for key, value in summary.items() if not key.startswith("seconds_") and math.isfinite(value)}
    logger.log_metrics({f"final/{key}": float(value) for key, value in numbers.items()})
    if isinstance(logger, WandbLogger):
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
    distances = [
        (summary_key(f"{name}_{statistic.main}"), rows[LEARNED].value, rows[PRIOR].value)
        for name, statistic in results.statistics.items()
        for rows in [statistic.distances[statistic.main]]
        if statistic.main in SHOWN_DISTANCES
    ]
    compared = [f"{key} {learned:.3g} (prior {prior:.3g})" for key, learned, prior in distances]
    lines = [", ".join(compared) or "the structure of the target is unknown, so no distances were measured"]
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
    return lines
