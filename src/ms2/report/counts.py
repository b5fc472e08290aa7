"""Statistics of a data set, accumulated over the records of its images."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError
from ms2.core.files import read_json
from ms2.datasets.records import ImageRecord, ObjectLabel

DISTANCE_BIN_WIDTH = 10
"""Width of a bin of distances, in metres."""
POSITION_BINS = 96
"""Bins of positions along each side of an image."""
PROVENANCE_KEYS = ("ms2", "run", "grammar", "checkpoint", "renderer", "device")
"""Fields of a record's provenance that are shown."""
OF_RUNS = ("run", "checkpoint")
"""Those that may differ in a data set that was made by one command, of a mixture of runs."""


def scene_names(folder: Path) -> list[str]:
    """Return the names of the files in ``scenes``, one record per image, in order; none without that folder.

    Raises:
        UserError: If the folder can't be read.
    """
    try:
        with os.scandir(folder / "scenes") as entries:
            return sorted(entry.name for entry in entries if entry.name.endswith(".json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder / 'scenes'}: can't be read ({error.strerror})") from error


class DataSetCounts:
    """Accumulates statistics over the records of images, and keeps the records of samples only.

    Args:
        description: Contents of ``dataset.json``.
        sample_names: File names of the records to keep.

    Attributes:
        samples: Kept records by file name.
        num_images: Number of records.
        num_expected: Number of records of the complete data set, if known.
        num_bytes: Size of all image files.
        num_truncated: Number of labelled objects that reach out of the image.
        image_sizes: Images by width and height.
        objects_per_image: Images by their number of labelled objects.
        objects: Labelled objects by class.
        hidden: Objects that are not visible enough to be labelled, by class.
        images_with: Images that show a class, by class.
        sizes: For each class, boxes by the square root of their area, in whole pixels.
        visibility: Labelled and hidden objects by tenths of their visible fraction.
        distances: Objects by distance from the camera in steps of `DISTANCE_BIN_WIDTH`; empty in 2D worlds.
        positions: Boxes by the position of their centre, in `POSITION_BINS` of the width and of the height.
        provenance: For each recorded field of `PROVENANCE_KEYS`, images by its value.
    """

    def __init__(self, description: Mapping[str, Any], sample_names: set[str]) -> None:
        self.sample_names = sample_names
        self.samples: dict[str, ImageRecord] = {}
        self.num_images = self.num_bytes = self.num_truncated = 0
        expected = description.get("num_scenes")
        self.num_expected = expected if isinstance(expected, int) else None
        categories = description.get("categories")
        self.objects = Counter({str(name): 0 for name in categories} if isinstance(categories, list) else {})
        self.image_sizes: Counter[tuple[int, int]] = Counter()
        self.objects_per_image: Counter[int] = Counter()
        self.hidden: Counter[str] = Counter()
        self.images_with: Counter[str] = Counter()
        self.sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.visibility: dict[str, Counter[int]] = {"labelled": Counter(), "hidden": Counter()}
        self.distances: Counter[int] = Counter()
        self.positions: Counter[tuple[int, int]] = Counter()
        self.provenance: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @property
    def num_objects(self) -> int:
        """Number of labelled objects."""
        return sum(self.objects.values())

    @property
    def all_sizes(self) -> Counter[int]:
        """Boxes of all classes by the square root of their area, in whole pixels."""
        return sum(self.sizes.values(), Counter())

    def add(self, path: Path) -> None:
        """Add the record in a file.

        Raises:
            UserError: If it isn't a record.
        """
        try:
            record = ImageRecord.from_json(read_json(path))
            self._add(record)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, UserError) and str(path) in str(error):
                raise
            raise UserError(
                f"{path}: this is not the record of an image ({error}). Delete it and run the same ms2 generate "
                "again, which makes what is missing"
            ) from error
        if path.name in self.sample_names:
            self.samples[path.name] = record

    def _add(self, record: ImageRecord) -> None:
        size = int(record.image.width), int(record.image.height)
        if min(size) < 1:
            raise ValueError(f"an image of {size[0]} x {size[1]} pixels")
        self.num_images += 1
        self.num_bytes += record.image.bytes or 0
        self.image_sizes[size] += 1
        self.objects_per_image[len(record.labels)] += 1
        self.objects.update(label.category for label in record.labels)
        self.images_with.update({label.category for label in record.labels})
        self.hidden.update(label.category for label in record.hidden)
        for label in record.labels:
            self._add_label(label, size)
        for label in record.hidden:
            self._add_visibility("hidden", label)
        about = record.provenance
        known = {"ms2": about.ms2, "device": about.device, **about.fingerprints}
        if about.run is not None:
            known["run"] = about.run
        for key in PROVENANCE_KEYS:
            if key in known:
                self.provenance[key]["none" if known[key] is None else str(known[key])] += 1

    def _add_label(self, label: ObjectLabel, image_size: tuple[int, int]) -> None:
        if label.bbox is None:
            raise ValueError(f"a labelled {label.category} without a box")
        x, y, w, h = map(float, label.bbox)
        self.sizes[label.category][round(math.sqrt(max(0.0, w * h)))] += 1
        centre = (x + w / 2) / image_size[0], (y + h / 2) / image_size[1]
        column, row = (min(POSITION_BINS - 1, max(0, int(POSITION_BINS * fraction))) for fraction in centre)
        self.positions[column, row] += 1
        self._add_visibility("labelled", label)
        self.num_truncated += (label.truncation or 0) > 0
        if label.box3d is not None:
            self.distances[int(max(0.0, float(label.box3d[5])) // DISTANCE_BIN_WIDTH)] += 1

    def _add_visibility(self, kind: str, label: ObjectLabel) -> None:
        self.visibility[kind][min(9, max(0, int(10 * float(label.visibility))))] += 1
