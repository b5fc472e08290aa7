"""What is in a data set, counted over the records of its scenes."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError
from ms2.report.reading import read_json

DISTANCE = 10
"""Metres in a bin of distances."""
PLACES = 96
"""Places that are told apart along each side of an image."""
ORIGINS = ("ms2", "grammar", "checkpoint", "renderer", "device")
"""What the record of an image says of where it comes from, and may differ within a set that was made bit by bit."""


def scene_names(folder: Path) -> list[str]:
    """Names of the records in order; none where there is no folder of them.

    Raises:
        UserError: If that can't be read.
    """
    try:
        with os.scandir(folder / "scenes") as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder / 'scenes'}: can't be read ({error.strerror})") from error


class Tally:
    """Counts over records that are read one after the other; only those of the samples are kept.

    Args:
        about: What ``dataset.json`` says.
        keep: Names of the records to keep.

    Attributes:
        samples: Those records by name.
        images: Number of records.
        promised: Number of records that there are to be in the end, where that is known.
        bytes: Size of all image files.
        image_sizes: Images by width and height.
        per_image: Images by their number of labelled objects.
        objects: Labelled objects by class.
        hidden: Objects by class that are too hidden to be labelled.
        images_with: Images that show the class, by class.
        sizes: For each class, boxes by the square root of their area, in whole pixels.
        visibility: Labelled and hidden objects by tenths of their visible share.
        distances: Objects by distance from the camera, in steps of `DISTANCE`; empty in two dimensions.
        truncated: Number of objects that reach out of the image.
        places: Boxes by where their middle is, in parts of the width and of the height.
        origins: Images by what they come from, for each of `ORIGINS` that is recorded.
    """

    def __init__(self, about: Mapping[str, Any], keep: set[str]) -> None:
        self.keep = keep
        self.samples: dict[str, dict[str, Any]] = {}
        self.images = self.bytes = self.truncated = 0
        promised = about.get("num_scenes")
        self.promised = promised if isinstance(promised, int) else None
        categories = about.get("categories")
        self.objects = Counter({str(name): 0 for name in categories} if isinstance(categories, list) else {})
        self.image_sizes: Counter[tuple[int, int]] = Counter()
        self.per_image: Counter[int] = Counter()
        self.hidden: Counter[str] = Counter()
        self.images_with: Counter[str] = Counter()
        self.sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.visibility: dict[str, Counter[int]] = {"labelled": Counter(), "hidden": Counter()}
        self.distances: Counter[int] = Counter()
        self.places: Counter[tuple[int, int]] = Counter()
        self.origins: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @property
    def total(self) -> int:
        """Number of labelled objects."""
        return sum(self.objects.values())

    @property
    def all_sizes(self) -> Counter[int]:
        """Sizes of all boxes."""
        return sum(self.sizes.values(), Counter())

    def add(self, path: Path) -> None:
        """Count one record.

        Raises:
            UserError: If it is not one.
        """
        record = read_json(path, dict)
        try:
            self._add(record)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: this is not the record of a scene ({type(error).__name__}: {error}). Delete it and run the "
                "same ms2 generate again, which makes what is missing"
            ) from error
        if path.name in self.keep:
            self.samples[path.name] = record

    def _add(self, record: Mapping[str, Any]) -> None:
        image, labels, hidden = record["image"], record["labels"], record.get("hidden") or ()
        size = int(image["width"]), int(image["height"])
        if min(size) < 1:
            raise ValueError(f"an image of {size[0]} x {size[1]} pixels")
        self.images += 1
        self.bytes += int(image.get("bytes") or 0)
        self.image_sizes[size] += 1
        names = [str(label["category"]) for label in labels]
        self.per_image[len(names)] += 1
        self.objects.update(names)
        self.images_with.update(set(names))
        self.hidden.update(str(thing["category"]) for thing in hidden)
        for name, label in zip(names, labels, strict=True):
            self._add_label(name, label, size)
        for thing in hidden:
            self._see("hidden", thing)
        provenance = record.get("provenance") or {}
        for key in ORIGINS:
            if key in provenance:
                value = "none" if provenance[key] is None else str(provenance[key])
                self.origins[key][value] += 1

    def _add_label(self, name: str, label: Mapping[str, Any], size: tuple[int, int]) -> None:
        x, y, w, h = map(float, label["bbox"])
        self.sizes[name][round(math.sqrt(max(0.0, w * h)))] += 1
        shares = (x + w / 2) / size[0], (y + h / 2) / size[1]
        column, row = (min(PLACES - 1, max(0, int(PLACES * share))) for share in shares)
        self.places[column, row] += 1
        self._see("labelled", label)
        self.truncated += float(label.get("truncation") or 0) > 0
        if label.get("box3d"):
            self.distances[int(max(0.0, float(label["box3d"][5])) // DISTANCE)] += 1

    def _see(self, who: str, thing: Mapping[str, Any]) -> None:
        if thing.get("visibility") is not None:
            self.visibility[who][min(9, max(0, int(10 * float(thing["visibility"]))))] += 1
