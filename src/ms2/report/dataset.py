"""The report of a data set: what is in it, how it looks, its card, and where it comes from."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ms2.core.errors import UserError
from ms2.datasets.labels import decode_mask
from ms2.report.card import markdown
from ms2.report.charts import heat_map, histogram
from ms2.report.gallery import Picture, embedded, gallery, label_of, mask_image
from ms2.report.markup import Html, details, element, fragment, table
from ms2.report.page import Section, chips, commands, page
from ms2.report.reading import inside, read_json, read_text
from ms2.report.tally import DISTANCE, PLACES, Tally, scene_names

SAMPLES = 24
"""Images on the page, evenly spread over the set."""
CELLS = 24
"""Cells of the map of places along its longer side."""
MAX_BINS = 24
"""Bins of a histogram of numbers; where there are more, several numbers share one."""
BOUNDS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
"""Bounds of the bins of box sizes, the square root of the area, in pixels; COCO calls 32 and 96 the ends of medium."""


def report_dataset(folder: Path) -> str:
    """The page of a data set.

    Raises:
        UserError: If a file can't be read, or there are no scenes.
    """
    about = read_json(folder / "dataset.json", dict)
    names = scene_names(folder)
    if not names:
        raise UserError(
            f"{folder}: this data set has no scenes/*.json yet, so there is nothing to report. Run the ms2 generate "
            "that began it again: it goes on where it stopped"
        )
    samples = [names[i * len(names) // SAMPLES] for i in range(SAMPLES)] if len(names) > SAMPLES else names
    tally = Tally(about, set(samples))
    for name in names:
        tally.add(folder / "scenes" / name)
    sections = [
        Section("Samples", _samples(folder, tally)),
        Section("Classes", _classes(tally)),
        Section("Histograms", _histograms(tally)),
        Section("Card", _card(folder)),
        Section("Provenance", _provenance(about, tally)),
        Section("Reproduce", _reproduce(folder, about, names[0])),
        Section("Settings", details("dataset.json", element("pre", element("code", json.dumps(about, indent=2))))),
    ]
    return page("data set", folder.resolve().name, _lead(about, tally), sections)


def _lead(about: Mapping[str, Any], tally: Tally) -> Html:
    size = f"{' × '.join(map(str, tally.image_sizes.most_common(1)[0][0]))} px"
    made = [str(about[key]) for key in ("source", "structure") if isinstance(about.get(key), str)]
    facts: list[tuple[str, object]] = [
        ("made from", ", ".join(made) or None),
        ("images", f"{tally.images:,}"),
        ("labelled objects", f"{tally.total:,}"),
        ("objects per image", f"{tally.total / tally.images:.2f}"),
        ("classes", len(tally.objects)),
        ("size", size if len(tally.image_sizes) == 1 else f"{size} and {len(tally.image_sizes) - 1} more"),
        ("images without objects", f"{tally.per_image[0]:,}"),
        ("hidden objects, not labelled", f"{sum(tally.hidden.values()):,}"),
        ("where", " and ".join(map(str, about.get("where") or ())) or None),
        ("formats", ", ".join(map(str, about.get("formats") or ())) or None),
        ("seed", about.get("seed")),
        ("on disk, images", f"{tally.bytes / 1e6:,.1f} MB" if tally.bytes else None),
    ]
    missing = None
    if isinstance(tally.promised, int) and tally.images < tally.promised:
        missing = (
            f"This data set is not complete: {tally.images:,} of {tally.promised:,} images are there. "
            "Run the same ms2 generate again: it goes on where it stopped."
        )
    return fragment(chips(facts), element("p", missing, class_="warning") if missing else None)


def _samples(folder: Path, tally: Tally) -> Html:
    """Images with boxes and masks."""
    counts = Counter(str(label["category"]) for record in tally.samples.values() for label in record["labels"])
    inks = {name: i for i, (name, _) in enumerate(counts.most_common())}  # in the order of the gallery's legend
    pictures = []
    for name, record in tally.samples.items():
        path = inside(folder, record["image"]["file"])
        if not path.exists():
            raise UserError(
                f"{path}: there is no such image, of which scenes/{name} is the record. Run the same ms2 generate "
                "again, which makes what is missing"
            )
        size = int(record["image"]["width"]), int(record["image"]["height"])
        labels = [label_of(label) for label in record["labels"]]
        pictures.append(Picture(embedded(path)[0], size, labels, path.stem, _masks(record["labels"], inks, size)))
    some = "All" if len(pictures) == tally.images else f"{len(pictures)} of {tally.images:,}"
    note = f"{some} images, evenly spread. Point at a box to read what it is; click an image to enlarge it."
    return fragment(element("p", note, class_="note"), gallery({"samples": pictures}))


def _masks(labels: Sequence[Mapping[str, Any]], inks: Mapping[str, int], size: tuple[int, int]) -> dict[str, str]:
    """What is covered by each class, as images."""
    covered: dict[str, np.ndarray] = {}
    for label in labels:
        runs, name = label.get("segmentation"), str(label["category"])
        # the decoder trusts the size that it is told
        if isinstance(runs, Mapping) and list(runs.get("size") or ()) == [size[1], size[0]]:
            mask = decode_mask({"size": [size[1], size[0]], "counts": str(runs["counts"])})
            covered[name] = covered[name] | mask if name in covered else mask
    return {name: mask_image(mask, inks[name]) for name, mask in covered.items()}


def _classes(tally: Tally) -> Html:
    """A row for each class."""
    rows = [
        [
            name,
            f"{number:,}",
            f"{number / tally.images:.2f}",
            f"{100 * tally.images_with[name] / tally.images:.0f} %",
            f"{tally.hidden[name]:,}",
            " / ".join(str(_quantile(tally.sizes[name], q)) for q in (0.05, 0.5, 0.95)) if number else "",
        ]
        for name, number in tally.objects.most_common()
    ]
    said = []
    if tally.total:
        shares = [f"{100 * share:.0f} %" for share in _binned(tally.all_sizes, (32, 96))]
        said.append(
            f"By COCO's sizes, {shares[0]} are small (below 32 px), {shares[1]} medium, and {shares[2]} large (96 px "
            "and more)."
        )
    if tally.truncated:
        said.append(f"{tally.truncated:,} objects reach out of the image.")
    head = ["class", "objects", "per image", "images with it", "hidden", "size: 5 / 50 / 95 % (px)"]
    return fragment(table(head, rows), element("p", " ".join(said), class_="note") if said else None)


def _histograms(tally: Tally) -> Html:
    charts = [_per_image(tally)]
    if tally.total:
        shares = {name: number / tally.total for name, number in tally.objects.most_common()}
        told = f"share of {tally.total:,} objects"
        charts += [histogram("Classes", [*shares], {"objects": [*shares.values()]}, told, ordered=False), _sizes(tally)]
    if seen := sum(sum(counts.values()) for counts in tally.visibility.values()):
        tenths = {
            who: [counts[tenth] / seen for tenth in range(10)] for who, counts in tally.visibility.items() if counts
        }
        edges = [f"{10 * tenth} %" for tenth in range(11)]
        charts.append(_ranges("Visible share of objects", edges, tenths, f"of {seen:,} objects"))
    if tally.distances:
        edges = [str(DISTANCE * k) for k in range(max(tally.distances) + 2)]
        number = sum(tally.distances.values())
        shares_at = [tally.distances[k] / number for k in range(len(edges) - 1)]
        charts.append(_ranges("Distance from the camera", edges, {"objects": shares_at}, "in metres"))
    if tally.places:
        charts.append(_places(tally))
    return element("div", charts, class_="charts")


def _per_image(tally: Tally) -> Html:
    title, caption = "Objects per image", f"share of {tally.images:,} images"
    low, high = min(tally.per_image), max(tally.per_image)
    width = -(-(high + 1 - low) // MAX_BINS)
    if width == 1:
        low = 0 if high < MAX_BINS else low
        numbers = range(low, high + 1)
        shares = [tally.per_image[n] / tally.images for n in numbers]
        return histogram(title, [str(n) for n in numbers], {"images": shares}, caption)
    lows = range(low, high + 1, width)
    shares = [sum(tally.per_image[n] for n in range(low, low + width)) / tally.images for low in lows]
    bins = [f"{low} to {low + width - 1}" for low in lows]
    return histogram(title, bins, {"images": shares}, caption, edges=[str(low) for low in (*lows, lows[-1] + width)])


def _sizes(tally: Tally) -> Html:
    shares = _binned(tally.all_sizes, BOUNDS)
    first = next(i for i, share in enumerate(shares) if share)
    last = max(i for i, share in enumerate(shares) if share) + 1
    edges = ["0", *map(str, BOUNDS), "∞"][first : last + 1]
    return _ranges("Size of boxes", edges, {"objects": shares[first:last]}, "square root of the area, in pixels")


def _ranges(title: str, edges: Sequence[str], shares: Mapping[str, Sequence[float]], caption: str) -> Html:
    bins = [f"{a.removesuffix(' %')} to {b}" for a, b in pairwise(edges)]
    return histogram(title, bins, shares, caption, edges=edges)


def _binned(sizes: Counter[int], bounds: Sequence[int]) -> list[float]:
    """Share of the sizes below the first bound, from there to the next, ..., and from the last one on."""
    ends, number = (0, *bounds, float("inf")), sum(sizes.values())
    return [sum(n for size, n in sizes.items() if a <= size < b) / number for a, b in pairwise(ends)]


def _quantile(counts: Counter[int], share: float) -> int:
    """The smallest value such that at least this share of what was counted is not above it."""
    wanted, seen = share * sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return max(counts)


def _places(tally: Tally) -> Html:
    (width, height), _ = tally.image_sizes.most_common(1)[0]
    columns, rows = (max(4, round(CELLS * side / max(width, height))) for side in (width, height))
    counts = [[0] * columns for _ in range(rows)]
    for (x, y), number in tally.places.items():
        counts[y * rows // PLACES][x * columns // PLACES] += number
    return heat_map("Where objects are", counts, width / height, "middles of their boxes in the image")


def _card(folder: Path) -> Html:
    path = folder / "README.md"
    if not path.exists():
        return Html()
    text = read_text(path)
    try:
        content = markdown(text)
    except RecursionError:  # nested deeper than anybody writes
        content = element("pre", text)
    return element("div", content, class_="card prose")


def _provenance(about: Mapping[str, Any], tally: Tally) -> Html:
    """Where images come from: what their records say, and what the whole set says besides."""
    rows: list[tuple[str, object]] = []
    for key, counts in tally.origins.items():
        found = [value if len(counts) == 1 else f"{value} ({n:,} images)" for value, n in counts.most_common(4)]
        rows.append((key, element("code", ", ".join(found))))
    rows += [
        (key, str(value))
        for key, value in about.items()
        if key not in tally.origins and isinstance(value, (str, int, float)) and not isinstance(value, bool)
    ]
    mixed = [key for key, counts in tally.origins.items() if len(counts) > 1 and key != "device"]
    told = f"Not all images were made alike: they differ in {', '.join(mixed)}."
    return fragment(element("p", told, class_="warning") if mixed else None, table(["", ""], rows, numeric=False))


def _reproduce(folder: Path, about: Mapping[str, Any], first: str) -> Html:
    lines = {}
    if typed := about.get("command"):
        lines["what was typed"] = str(typed)
    record = shlex.quote(str(folder / "scenes" / first))
    lines["one image again, to the byte"] = f"ms2 render --provenance {record} --output again.png"
    lines["this page"] = f"ms2 report {shlex.quote(str(folder))}"
    return commands(lines)
