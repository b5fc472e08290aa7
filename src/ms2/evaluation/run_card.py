"""The card of a run: what was learned, from what, how well it fits, what it does not know, and how to use it."""

from collections.abc import Mapping

from ms2.core.formatting import format_duration, format_interval, format_number
from ms2.metrics.results import (
    DISTANCE_TITLES,
    LEARNED,
    NOISE_FLOOR,
    PRIOR,
    ROW_TITLES,
    Estimate,
    Results,
    StatisticResult,
)
from ms2.models.scene_model import Row, SceneModel

SHOWN_ROWS = (PRIOR, LEARNED, NOISE_FLOOR)
"""Rows of the table of distances."""


def run_card(name: str, results: Results, model: SceneModel, shipped: bool = False) -> str:
    """Format the card as Markdown, beside ``summary.png``.

    Args:
        name: Name of the run.
        results: What was measured.
        model: What was learned.
        shipped: Whether it is the card of a learned model that comes with a world, without pictures, which is
            opened by its name.
    """
    world, learned = model.world, model.learned
    parts = " and ".join(part for part, has in learned._asdict().items() if has)
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A distribution of the {parts} of scenes, learned by ms2 from images of a target (`"
            f"{results.measured_with.target}`), without labels. Its scenes consist of {', '.join(world.classes)}; they "
            f"are rendered by `{type(world.renderer).__name__}`, with all labels.",
            "",
            *_usage(name, shipped),
            "",
            "## How well it fits the target",
            "",
            *_distances(results),
            "",
            "## What it does not know",
            "",
            *_limits(results, learned),
            "",
            "## How it was learned",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in _provenance(results).items()),
            "",
            "`config.yaml` has all settings, `metrics.json` all measurements.",
            "",
            "## Licence",
            "",
            f"Of rendered images: {world.renderer.licence} The weights are derived from the target's images, whose "
            "licence may bind them.",
            "",
        ]
    )


def _usage(name: str, shipped: bool) -> list[str]:
    """Picture, commands and Python."""
    source = name if shipped else f"runs/{name}"
    picture = ["![Histograms and images of prior, learned model and target](summary.png)", ""]
    return [
        *([] if shipped else picture),
        "## How to use it",
        "",
        "In any folder:" if shipped else "From the folder that holds `runs`:",
        "",
        f"```\nms2 generate {source} --num_scenes 1000 --format coco\nms2 report {source}\n```",
        "",
        "```python",
        "import ms2",
        "import torch",
        "",
        f'model = ms2.load("{source}")',
        "labelled = model.labelled(16, torch.Generator().manual_seed(0))  # images, boxes, masks, classes",
        "```",
    ]


def _distances(results: Results) -> list[str]:
    """Tables of the main distances by row, of FID and KID, and of what was read where nothing else is known."""
    lines, rows = [], f"{' | '.join(ROW_TITLES[row] for row in SHOWN_ROWS)} |\n|---|---|---|---|"
    if results.statistics:
        lines += [
            f"| distance to the target | {rows}",
            *(_row(_title(one), one.distances[one.main]) for one in results.statistics.values()),
        ]
    if results.images is not None:
        lines += [""] * bool(lines) + [
            f"| distance of images, by {results.images.features} | {rows}",
            *(_row(DISTANCE_TITLES.get(key, key), one) for key, one in results.images.distances.items()),
        ]
    if results.readings is not None:
        read = (f"{ROW_TITLES[row]} {format_number(mean)}" for row, mean in results.readings.objects.items())
        lines += [""] * bool(lines) + [f"Objects per image as the extractor reads them, estimates: {', '.join(read)}."]
    lines += ["", "In brackets: 95 % intervals. The noise floor is the distance that a perfect model would show."]
    return lines if len(lines) > 2 else ["Nothing was measured, as the target's truth is unknown."]


def _title(statistic: StatisticResult) -> str:
    unit = f" ({statistic.unit})" if statistic.unit else ""
    return f"{statistic.title}, {DISTANCE_TITLES.get(statistic.main, statistic.main)}{unit}"


def _row(title: str, rows: Mapping[str, Estimate]) -> str:
    return f"| {title} | {' | '.join(_cell(rows.get(row)) for row in SHOWN_ROWS)} |"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    interval = f" ({format_interval(*estimate.interval)})" if estimate.interval else ""
    return format_number(estimate.value) + interval


def _limits(results: Results, learned: Row) -> list[str]:
    """Sentences about what no number of the table says."""
    lines = ["- What the grammar and the renderer can't express is in no scene, whatever the target shows."]
    lines += [
        f"- {part.capitalize()}: the hand-made prior's, of which nothing was learned."
        for part, has in learned._asdict().items()
        if not has
    ]
    if results.not_read:
        lines.append(f"- Not read in images, so that the prior's numbers are kept: {', '.join(results.not_read)}.")
    if not results.structure:
        lines.append("- The structure of the target's scenes is unknown, so no distance of structure was measured.")
    for name, stage in results.stages.items():
        for prior, probe in stage.probes.items():
            if (accuracy := probe.scores.get("count_accuracy")) is not None:
                lines.append(
                    f"- The {name} counts the objects of {100 * accuracy:.0f} % of rendered images rightly ({prior}); "
                    "what it misreads biases what is learned."
                )
    return lines


def _provenance(results: Results) -> dict[str, str]:
    """What the run was made with, by the name of a row."""
    made = results.measured_with
    found = {
        "command": f"`{made.command}`" if made.command else "",
        "steps of learning": f"{made.steps:,}",
        "duration": format_duration(results.seconds["total"]) if "total" in results.seconds else "",
        "stages before": ", ".join(
            f"{name} {format_duration(stage.seconds)}{' (from the cache)' if stage.reused else ''}"
            for name, stage in results.stages.items()
        ),
        "seed": str(made.seed),
        "scenes measured": f"{made.num_scenes:,}",
        "versions": ", ".join(f"{key} {value}" for key, value in made.versions.items()),
        "fingerprint of what it was measured with": f"`{made.fingerprint}`" if made.fingerprint else "",
    }
    return {key: value for key, value in found.items() if value}
