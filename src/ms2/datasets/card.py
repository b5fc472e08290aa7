"""The card of a data set: contents, provenance and usage."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ms2.core.images import encode, image_grid
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.labelled_set import corners
from ms2.datasets.labels import LabelFilter
from ms2.datasets.sequences.animation import ANIMATION, first_sequence
from ms2.world import World

NUM_SAMPLE_IMAGES = 16
BOX_COLOURS = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe",
)  # fmt: skip
MAX_HISTOGRAM_ROWS = 20
BAR_WIDTH = 30
"""Characters of a histogram's longest bar."""
PROVENANCE_KEYS = (
    "ms2", "seed", "structure", "parameters", "checkpoint", "grammar", "structure_prior", "parameter_prior",
    "renderer", "device",
)  # fmt: skip


class DataSetSummary(NamedTuple):
    """Counts of a data set's objects and labels.

    Attributes:
        images: Number of images that were counted.
        labelled: Labelled objects by class.
        hidden: Hidden objects by class.
        images_with_class: Images with at least one labelled object of a class, by class.
        per_image: Images by their number of labelled objects.
        visibility: Labelled objects by tenths of their visible fraction.
        runs: Images by the run of a mixture that their scene was drawn from.
    """

    images: int
    labelled: Counter[str]
    hidden: Counter[str]
    images_with_class: Counter[str]
    per_image: Counter[int]
    visibility: Counter[int]
    runs: Counter[str]


def summarise_records(records: Records) -> DataSetSummary:
    """Accumulate counts over records, one at a time."""
    summary = DataSetSummary(0, *(Counter() for _ in DataSetSummary._fields[1:]))
    images = 0
    for record in records():
        images += 1
        names = [label.category for label in record.labels]
        summary.labelled.update(names)
        summary.hidden.update(label.category for label in record.hidden)
        summary.images_with_class.update(set(names))
        summary.per_image[len(names)] += 1
        summary.runs.update([] if record.provenance.run is None else [record.provenance.run])
        summary.visibility.update(min(int(label.visibility * 10), 9) for label in record.labels)
    return summary._replace(images=images)


def write_card(
    files: DataSetFolder,
    description: dict[str, Any],
    formats: Sequence[Format],
    label_filter: LabelFilter,
    world: World,
    records: Records,
) -> None:
    """Write ``README.md`` and ``sample.png``, from all records or from some at equal distances."""
    files.write("sample.png", _sample_picture(files, label_filter.categories, records))
    if description.get("frames"):
        files.write(ANIMATION, first_sequence(files, label_filter.categories, records))
    summary = summarise_records(records)
    files.write("README.md", card_markdown(summary, description, formats, label_filter, world.renderer.licence))


def card_markdown(
    summary: DataSetSummary,
    description: dict[str, Any],
    formats: Sequence[Format],
    label_filter: LabelFilter,
    licence: str,
) -> str:
    """Format the card as Markdown."""
    return "\n".join(
        [
            *_introduction(summary, description),
            "",
            "![Some of the images, with boxes](sample.png)",
            *(["", f"![The first sequence, with tracks]({ANIMATION})"] if description.get("frames") else []),
            "",
            *_contents(summary, label_filter, number_of_images(description)),
            "",
            "## How to load it",
            "",
            *(line for each in formats for line in (each.usage(), "")),
            "`scenes/NUMBER.json` is an image's record: its scene graph with every object's attributes, its labels "
            "with masks and visible fractions, and its provenance.",
            "",
            "## How it was generated",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {description[key]} |" for key in PROVENANCE_KEYS if description.get(key) is not None),
            "",
            *_mixture(summary, description),
            "`dataset.json` has all settings. The same version of ms2 renders any image again, to the byte:",
            "",
            "```\nms2 render --provenance scenes/000000.json --output again.png\n```",
            "",
            "## Licence",
            "",
            licence,
            "",
        ]
    )


def _introduction(summary: DataSetSummary, description: dict[str, Any]) -> list[str]:
    height, width = description["size"]
    frames = description.get("frames")
    moving = f" They are {description['num_scenes']} sequences of {frames} frames." if frames else ""
    conditions, images = description["conditions"], number_of_images(description)
    objects = round(sum(summary.labelled.values()) * images / summary.images)
    about = "" if summary.images == images else "about "
    return [
        f"# {description['source']}: {images} images, {about}{objects} labelled objects",
        "",
        f"Synthetic images of {width} x {height} pixels, generated by ms2 {description['ms2']} from "
        f"{origin(description)}, seed {description['seed']}"
        + (f", with {' and '.join(f'`{text}`' for text in conditions)}." if conditions else ".")
        + moving,
    ]


def number_of_images(description: dict[str, Any]) -> int:
    """Return the number of a data set's images, frames of sequences included, from its description."""
    number: int = description["num_scenes"] * description.get("frames", 1)
    return number


def origin(description: dict[str, Any]) -> str:
    """Describe in words what a data set's scenes are drawn from.

    Args:
        description: The data set's description, as in ``dataset.json``.
    """
    if mix := description.get("mix"):
        return f"a mixture of {' and '.join(f'`{run}`' for run in mix)}"
    structure = {"learned": "a trained structure model", "prior": "the structure prior"}[description["structure"]]
    structure += " and a trained parameter model" if description["parameters"] == "learned" else ""
    return f"{structure} of `{description['source']}`"


def _mixture(summary: DataSetSummary, description: dict[str, Any]) -> list[str]:
    """List the runs of a mixture, their shares, and fingerprints of what their scenes are drawn from."""
    mix = description.get("mix")
    if not mix:
        return []
    total = sum(mix.values())
    rows = [
        f"| {run['source']} | {weight} of {total} | {summary.runs[run['source']]} "
        f"| {run['structure']} `{run['checkpoint'] or run['structure_prior']}` "
        f"| {run['parameters']} `{run['parameter_prior']}` |"
        for run, weight in zip(description["runs"], mix.values(), strict=True)
    ]
    return [
        "Scenes are drawn from several runs, in random order; `provenance.run` of a record says from which:",
        "",
        "| run | share | images | structure | parameters |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _contents(summary: DataSetSummary, label_filter: LabelFilter, num_images: int) -> list[str]:
    rows = [
        f"| {name} | {summary.labelled[name]} | {summary.labelled[name] / summary.images:.2f} "
        f"| {summary.images_with_class[name] / summary.images:.0%} | {summary.hidden[name]} |"
        for name in label_filter.categories
    ]
    return [
        "## Contents",
        "",
        *([] if summary.images == num_images else [_sampling(summary.images, num_images), ""]),
        "| class | objects | per image | images with it | hidden |",
        "|---|---|---|---|---|",
        *rows,
        "",
        str(label_filter),
        "",
        "Number of images by their number of labelled objects:",
        "",
        *_histogram(_binned(summary.per_image)),
        "",
        "Number of labelled objects by their visible fraction:",
        "",
        *_histogram({f"{tenth * 10}-{tenth * 10 + 10} %": summary.visibility[tenth] for tenth in range(10)}),
    ]


def _sampling(counted: int, num_images: int) -> str:
    return f"All numbers are those of {counted} images at equal distances among the {num_images}."


def _binned(counts: Counter[int]) -> dict[str, int]:
    """Bin numbers into at most `MAX_HISTOGRAM_ROWS` rows."""
    largest = max(counts)
    width = -(-(largest + 1) // MAX_HISTOGRAM_ROWS)
    rows = {low: sum(counts[n] for n in range(low, low + width)) for low in range(0, largest + 1, width)}
    return {str(low) if width == 1 else f"{low}-{low + width - 1}": n for low, n in rows.items()}


def _histogram(counts: dict[str, int]) -> list[str]:
    """Format a histogram as text, readable in a terminal too."""
    largest, wide = max([1, *counts.values()]), max(map(len, counts))
    bars = [f"{name:>{wide}}  {'#' * round(BAR_WIDTH * n / largest):{BAR_WIDTH}}  {n}" for name, n in counts.items()]
    return ["```", *bars, "```"]


def _sample_picture(files: DataSetFolder, categories: Sequence[str], records: Records) -> bytes:
    """Draw the first images with their boxes."""
    from torchvision.transforms.functional import pil_to_tensor  # takes seconds to import
    from torchvision.utils import draw_bounding_boxes

    pictures = []
    for _, record in zip(range(NUM_SAMPLE_IMAGES), records(), strict=False):
        with Image.open(files.root / record.image.file) as image:
            pixels = pil_to_tensor(image.convert("RGB"))
        boxes = torch.tensor([corners(label.bbox) for label in record.labels if label.bbox is not None]).view(-1, 4)
        boxes = boxes.long()
        colours = [BOX_COLOURS[categories.index(label.category) % len(BOX_COLOURS)] for label in record.labels]
        if len(boxes):
            boxes[:, 2:] = torch.maximum(boxes[:, 2:] - 1, boxes[:, :2])  # from edges to the last pixels
            pixels = draw_bounding_boxes(pixels, boxes, colors=colours)
        pictures.append(pixels)
    grid: np.ndarray = image_grid(torch.stack(pictures).float() / 255)
    return encode(grid, "png")
