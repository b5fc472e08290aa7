"""Report of a data set: statistics, samples, card and provenance."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from markupsafe import Markup

from ms2.core.errors import UserError
from ms2.core.files import read_json, read_text
from ms2.datasets.labelled_set import path_inside
from ms2.datasets.masks import decode_mask
from ms2.datasets.records import ObjectLabel
from ms2.report.card import render_card
from ms2.report.charts import Chart, heat_map, histogram
from ms2.report.counts import DISTANCE_BIN_WIDTH, OF_RUNS, POSITION_BINS, DataSetCounts, scene_names
from ms2.report.gallery import Gallery, GalleryImage, GalleryLabel, build_gallery, bytes_per_image, data_uri
from ms2.report.page import Fact, ReproduceSection, Section, drop_empty_facts, render_page
from ms2.report.tables import Table

NUM_SAMPLES = 24
"""Images on the page, evenly spread over the data set."""
HEAT_MAP_CELLS = 24
"""Cells of the heat map along its longer side."""
MAX_BINS = 24
"""Bins of a histogram of numbers; larger ranges have several numbers in a bin."""
SIZE_EDGES = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
"""Edges of the bins of box sizes, the square root of the area, in pixels."""
COCO_SIZES = (32, 96)
"""Sizes in pixels at which COCO's medium objects begin and end."""


class NotedTable(NamedTuple):
    """A table with a note.

    Attributes:
        table: The table.
        note: The line below it; may be empty.
        warning: A warning above it; may be empty.
    """

    table: Table
    note: str = ""
    warning: str = ""


def report_dataset(folder: Path) -> str:
    """Write the report of a data set.

    Raises:
        UserError: If a file can't be read, or there are no scenes.
    """
    description = read_json(folder / "dataset.json")
    names = scene_names(folder)
    if not names:
        raise UserError(
            f"{folder}: this data set has no scenes/*.json yet, so there is nothing to report. Run the ms2 generate "
            "that began it again: it continues where it stopped"
        )
    samples = names
    if len(names) > NUM_SAMPLES:
        samples = [names[i * len(names) // NUM_SAMPLES] for i in range(NUM_SAMPLES)]
    counts = DataSetCounts(description, set(samples))
    for name in names:
        counts.add(folder / "scenes" / name)
    sections = [
        Section("Samples", "sections/images.html", _samples(folder, counts)),
        Section("Classes", "sections/classes.html", _classes(counts)),
        Section("Histograms", "sections/charts.html", _charts(counts)),
        Section("Card", "sections/card.html", _card(folder)),
        Section("Provenance", "sections/provenance.html", _provenance(description, counts)),
        Section("Reproduce", "sections/reproduce.html", _reproduce(folder, description, names[0])),
        Section("Settings", "sections/source.html", Fact("dataset.json", json.dumps(description, indent=2))),
    ]
    return render_page(
        "dataset.html",
        "data set",
        folder.resolve().name,
        sections,
        facts=_facts(description, counts),
        missing=_missing(counts),
    )


def _facts(description: Mapping[str, Any], counts: DataSetCounts) -> list[Fact]:
    size = f"{' × '.join(map(str, counts.image_sizes.most_common(1)[0][0]))} px"
    origin = [str(description[key]) for key in ("source", "structure") if isinstance(description.get(key), str)]
    conditions = description.get("conditions") or ()
    return drop_empty_facts(
        [
            Fact("made from", ", ".join(origin) or None),
            Fact("images", f"{counts.num_images:,}"),
            Fact("labelled objects", f"{counts.num_objects:,}"),
            Fact("objects per image", f"{counts.num_objects / counts.num_images:.2f}"),
            Fact("classes", len(counts.objects)),
            Fact("size", size if len(counts.image_sizes) == 1 else f"{size} and {len(counts.image_sizes) - 1} more"),
            Fact("images without objects", f"{counts.objects_per_image[0]:,}"),
            Fact("hidden objects, not labelled", f"{sum(counts.hidden.values()):,}"),
            Fact("conditions", " and ".join(map(str, conditions)) or None),
            Fact("formats", ", ".join(map(str, description.get("formats") or ())) or None),
            Fact("seed", description.get("seed")),
            Fact("size of image files", f"{counts.num_bytes / 1e6:,.1f} MB" if counts.num_bytes else None),
        ]
    )


def _missing(counts: DataSetCounts) -> str:
    if counts.num_expected is None or counts.num_images >= counts.num_expected:
        return ""
    return (
        f"This data set is not complete: {counts.num_images:,} of {counts.num_expected:,} images are there. "
        "Run the same ms2 generate again: it continues where it stopped."
    )


def _samples(folder: Path, counts: DataSetCounts) -> Gallery | None:
    """Images with boxes and masks."""
    max_bytes, images = bytes_per_image(len(counts.samples)), []
    for name, record in counts.samples.items():
        path = path_inside(folder, record.image.file)
        if not path.exists():
            raise UserError(
                f"{path}: there is no such image, of which scenes/{name} is the record. Run the same ms2 generate "
                "again, which makes what is missing"
            )
        size = record.image.width, record.image.height
        labels = [
            GalleryLabel(label.category, (x, y, w, h), label.visibility)
            for label in record.labels
            for x, y, w, h in [label.bbox or ()]
        ]
        images.append(GalleryImage(data_uri(path, max_bytes)[0], size, labels, path.stem, _masks(record.labels, size)))
    some = "All" if len(images) == counts.num_images else f"{len(images)} of {counts.num_images:,}"
    note = f"{some} images, evenly spread. Point at a box to read its class and size; click an image to enlarge it."
    return build_gallery({"samples": images}, note)


def _masks(labels: Sequence[ObjectLabel], size: tuple[int, int]) -> dict[str, Bool[np.ndarray, "h w"]]:
    """Union of the masks of each class."""
    found: dict[str, Bool[np.ndarray, "h w"]] = {}
    for label in labels:
        if isinstance(label.segmentation, Mapping) and list(label.segmentation.get("size") or ()) == [size[1], size[0]]:
            mask = decode_mask(label.segmentation, (size[1], size[0]))
            found[label.category] = found[label.category] | mask if label.category in found else mask
    return found


def _classes(counts: DataSetCounts) -> NotedTable:
    """A row for each class."""
    rows = [
        [
            name,
            f"{number:,}",
            f"{number / counts.num_images:.2f}",
            f"{100 * counts.images_with[name] / counts.num_images:.0f} %",
            f"{counts.hidden[name]:,}",
            " / ".join(str(_quantile(counts.sizes[name], q)) for q in (0.05, 0.5, 0.95)) if number else "",
        ]
        for name, number in counts.objects.most_common()
    ]
    notes = []
    if counts.num_objects:
        small, medium, large = (f"{100 * share:.0f} %" for share in _binned(counts.all_sizes, COCO_SIZES))
        notes.append(
            f"By COCO's sizes, {small} are small (below 32 px), {medium} medium, and {large} large (96 px and more)."
        )
    if counts.num_truncated:
        notes.append(f"{counts.num_truncated:,} objects reach out of the image.")
    head = ["class", "objects", "per image", "images with it", "hidden", "size: 5 / 50 / 95 % (px)"]
    return NotedTable(Table(head, rows), " ".join(notes))


def _charts(counts: DataSetCounts) -> list[Chart]:
    charts = [_objects_per_image(counts)]
    if counts.num_objects:
        shares = {name: number / counts.num_objects for name, number in counts.objects.most_common()}
        caption = f"share of {counts.num_objects:,} objects"
        charts.append(histogram("Classes", [*shares], {"objects": [*shares.values()]}, caption, ordered=False))
        charts.append(_sizes(counts))
    if number := sum(sum(tenths.values()) for tenths in counts.visibility.values()):
        shares_of = {
            kind: [tenths[i] / number for i in range(10)] for kind, tenths in counts.visibility.items() if tenths
        }
        bins = [f"{10 * i} to {10 * i + 10} %" for i in range(10)]
        charts.append(histogram("Visible fraction of objects", bins, shares_of, f"share of {number:,} objects"))
    if counts.distances:
        bins = [f"{DISTANCE_BIN_WIDTH * k} to {DISTANCE_BIN_WIDTH * (k + 1)}" for k in range(max(counts.distances) + 1)]
        number = sum(counts.distances.values())
        distances = {"objects": [counts.distances[k] / number for k in range(len(bins))]}
        charts.append(histogram("Distance from the camera", bins, distances, "in metres"))
    if counts.positions:
        charts.append(_positions(counts))
    return charts


def _objects_per_image(counts: DataSetCounts) -> Chart:
    low, high = min(counts.objects_per_image), max(counts.objects_per_image)
    width = -(-(high + 1 - low) // MAX_BINS)
    first = 0 if width == 1 and high < MAX_BINS else low
    ranges = [range(n, n + width) for n in range(first, high + 1, width)]
    bins = [str(some[0]) if width == 1 else f"{some[0]} to {some[-1]}" for some in ranges]
    shares = [sum(counts.objects_per_image[n] for n in some) / counts.num_images for some in ranges]
    return histogram("Objects per image", bins, {"images": shares}, f"share of {counts.num_images:,} images")


def _sizes(counts: DataSetCounts) -> Chart:
    shares = _binned(counts.all_sizes, SIZE_EDGES)
    edges = ["0", *map(str, SIZE_EDGES), "∞"]
    bins = [f"{low} to {high}" for low, high in pairwise(edges)]
    used = [i for i, share in enumerate(shares) if share]
    shown = slice(used[0], used[-1] + 1)
    return histogram("Size of boxes", bins[shown], {"objects": shares[shown]}, "square root of the area, in pixels")


def _binned(sizes: Counter[int], edges: Sequence[int]) -> list[float]:
    """Fraction of the sizes below the first edge, from there to the next, ..., and from the last one on."""
    ends, number = (0, *edges, float("inf")), sum(sizes.values())
    return [sum(n for size, n in sizes.items() if a <= size < b) / number for a, b in pairwise(ends)]


def _quantile(counts: Counter[int], fraction: float) -> int:
    """The smallest value such that at least this fraction of what was counted is not above it."""
    wanted, seen = fraction * sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return max(counts)


def _positions(counts: DataSetCounts) -> Chart:
    (width, height), _ = counts.image_sizes.most_common(1)[0]
    columns, rows = (max(4, round(HEAT_MAP_CELLS * side / max(width, height))) for side in (width, height))
    cells = [[0] * columns for _ in range(rows)]
    for (x, y), number in counts.positions.items():
        cells[y * rows // POSITION_BINS][x * columns // POSITION_BINS] += number
    return heat_map("Positions of objects", cells, width / height, "centres of their boxes in the image")


def _card(folder: Path) -> Markup | None:
    path = folder / "README.md"
    return render_card(read_text(path)) if path.exists() else None


def _provenance(description: Mapping[str, Any], counts: DataSetCounts) -> NotedTable:
    """Provenance in the records, then the settings of the whole data set."""
    rows = []
    for key, images in counts.provenance.items():
        found = [value if len(images) == 1 else f"{value} ({n:,} images)" for value, n in images.most_common(4)]
        rows.append([key, ", ".join(found)])
    rows += [
        [key, str(value)]
        for key, value in description.items()
        if key not in counts.provenance and isinstance(value, (str, int, float)) and not isinstance(value, bool)
    ]
    may_differ = ("device", *(OF_RUNS if description.get("mix") else ()))
    mixed = [key for key, images in counts.provenance.items() if len(images) > 1 and key not in may_differ]
    warning = f"Not all images were made alike: they differ in {', '.join(mixed)}." if mixed else ""
    return NotedTable(Table(["", ""], rows, numeric=False, code=True), warning=warning)


def _reproduce(folder: Path, description: Mapping[str, Any], first: str) -> ReproduceSection:
    commands = {}
    if command := description.get("command"):
        commands["command of this data set"] = str(command)
    record = shlex.quote(str(folder / "scenes" / first))
    commands["render one image again, byte by byte"] = f"ms2 render --provenance {record} --output again.png"
    commands["this page"] = f"ms2 report {shlex.quote(str(folder))}"
    return ReproduceSection(commands, "")
