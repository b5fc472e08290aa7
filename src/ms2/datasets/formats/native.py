"""ms2's own format: per scene an image, a record and perhaps maps, and ``dataset.json``; writer and reader."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from ms2.core.bounds import PositiveFloat, PositiveInt
from ms2.core.images import read_image
from ms2.core.paths import UserPath, expand_path
from ms2.datasets.folder import DataSetFolder, FolderError
from ms2.datasets.labelled_set import (
    Annotation,
    DataSetError,
    Example,
    LabelledSet,
    NameIndex,
    choose_categories,
    corners,
    path_inside,
    read_json_object,
    reading,
    stack_annotations,
)
from ms2.datasets.masks import decode_mask
from ms2.datasets.records import FLOW_MAPS, ImageRecord, ObjectLabel
from ms2.metrics.average_precision import occlusion_level
from ms2.scene.records import RecordError

SUFFIX_BY_FORMAT = {"png": "png", "jpeg": "jpg"}
"""Suffix of the image files by the format that the plan's ``image`` names."""


class RecordFiles:
    """Images, depth images, maps and records of a data set.

    Args:
        folder: The data set's folder.
        image: ``png`` or ``jpeg``.
        depth: Whether there are depth images.
        maps: Suffix of the files of each map, by its name.
    """

    def __init__(
        self, folder: DataSetFolder, image: Literal["png", "jpeg"], depth: bool, maps: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.suffix, self.depth = folder, SUFFIX_BY_FORMAT[image], depth
        self.maps = maps or {}

    def image_name(self, index: int) -> str:
        """Return the path of an image in the data set."""
        return f"images/{index:06d}.{self.suffix}"

    def record_name(self, index: int) -> str:
        """Return the path of a record in the data set."""
        return f"scenes/{index:06d}.json"

    def depth_name(self, index: int) -> str:
        """Return the path of a depth image in the data set."""
        return f"depth/{index:06d}.png"

    def map_name(self, name: str, index: int) -> str:
        """Return the path of a map in the data set."""
        return f"{name}/{index:06d}.{self.maps[name]}"

    def is_complete(self, index: int) -> bool:
        """Return whether an image, its record and its maps exist, and files have the sizes in the record."""
        record = self._read(index)
        if record is None or not self._has_size(self.image_name(index), record.image.bytes):
            return False
        ends = record.frame is not None and record.frame.is_last  # flow leads to the next frame
        names = [name for name in self.maps if not (ends and name in FLOW_MAPS)]
        expected = {self.map_name(name, index): record.maps.get(name) for name in names}
        if self.depth:
            expected[self.depth_name(index)] = record.depth
        return all(file is not None and self._has_size(name, file.bytes) for name, file in expected.items())

    def write(self, record: ImageRecord, contents: Mapping[str, bytes]) -> None:
        """Write image, depth image, maps and record; the record last, as it marks the image as complete.

        Args:
            record: The record.
            contents: Contents of the other files by their path in the data set.
        """
        for name, content in contents.items():
            self.folder.write(name, content)
        self.folder.write_json(self.record_name(record.provenance.index), record.to_json())

    def read(self, number: int, step: int = 1) -> Iterator[ImageRecord]:
        """Iterate over the first records in order.

        Args:
            number: Number of records.
            step: Read every n-th record alone.

        Raises:
            FolderError: If one is missing.
        """
        for index in range(0, number, step):
            record = self._read(index)
            if record is None:
                raise FolderError(
                    f"{self.folder.root / self.record_name(index)} is missing: run the same command again"
                )
            yield record

    def _read(self, index: int) -> ImageRecord | None:
        found = self.folder.read_json(self.record_name(index))
        try:
            return None if found is None else ImageRecord.from_json(found)
        except RecordError:
            return None

    def _has_size(self, name: str, size: int) -> bool:
        path = self.folder.root / name
        return path.is_file() and path.stat().st_size == size


def read_record(path: Path) -> ImageRecord:
    """Read a record of a data set.

    Raises:
        DataSetError: If it is missing or damaged.
    """
    found = read_json_object(path)
    try:
        return ImageRecord.from_json(found)
    except RecordError as error:
        raise DataSetError(f"{path} is damaged, or has an unexpected format: {error}") from error


class GeneratedSet(LabelledSet):
    """A data set written by ``ms2 generate``, read from its records.

    Hidden objects, below the threshold of visibility, are regions, which are not learned and which evaluation leaves
    out.

    Args:
        folder: The folder with ``dataset.json``.
        categories: Categories in the order of their labels; by default all of the set.
        masks: Whether to return masks.
        amodal: Use boxes of whole objects, as KITTI's are, instead of boxes of their visible part.
        limit: Use only the first n images; null for all.
        kitti_scale: Size of the images relative to KITTI's, by which the height limits of easy, moderate and hard
            objects are scaled: 96 / 375 for images 96 pixels high.

    Raises:
        DataSetError: If the folder holds no data set, or an incomplete one.
        UserError: If the set does not have a category.
    """

    def __init__(
        self,
        folder: UserPath,
        categories: Sequence[str] | None = None,
        masks: bool = False,
        amodal: bool = False,
        limit: PositiveInt | None = None,
        kitti_scale: PositiveFloat = 1.0,
    ) -> None:
        self.folder = expand_path(folder).absolute()
        self.masks, self.amodal, self.kitti_scale = masks, amodal, kitti_scale
        about = self._read_description()
        number, available, frames = about.get("num_scenes"), about.get("categories"), about.get("frames")
        if not (isinstance(number, int) and isinstance(available, list) and all(isinstance(n, str) for n in available)):
            raise DataSetError(f"{self.folder / 'dataset.json'} does not say num_scenes and categories: it is damaged")
        self.categories = choose_categories(categories, available, str(self.folder))
        scenes = list((self.folder / "scenes").glob("*.json"))
        scenes.sort(key=lambda path: (len(path.name), path.name))  # 1000000 has a digit more than 999999
        number *= frames if isinstance(frames, int) else 1
        if len(scenes) < number:
            raise DataSetError(
                f"{self.folder} is not complete: it holds {len(scenes)} of {number} scenes. Run the same ms2 generate "
                "again: it makes what is missing."
            )
        self.scenes = scenes[:limit]

    def _read_description(self) -> dict[str, Any]:
        path = self.folder / "dataset.json"
        if not self.folder.is_dir():
            raise DataSetError(f"there is no folder {self.folder}: make a data set there with ms2 generate")
        if not path.is_file():
            raise DataSetError(
                f"{self.folder} is no data set of ms2: it has no dataset.json. Make one with ms2 generate, or read "
                "others as COCO or KITTI sets."
            )
        return read_json_object(path)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> Example:
        """Return an image and its annotations."""
        path = self.scenes[index]
        record = read_record(path)
        with reading(path):
            image = read_image(path_inside(self.folder, record.image.file))
            height, width = image.shape[1:]
            if (height, width) != (record.image.height, record.image.width):
                raise ValueError(
                    f"it is the record of an image of {record.image.width} x {record.image.height} pixels, but "
                    f"{record.image.file} has {width} x {height}"
                )
            size = (height, width) if self.masks else None
            found = label_annotations(record.labels, record.hidden, self.categories, self.amodal, size)
            return image, stack_annotations(image, found, self.masks, self.kitti_scale)


def label_annotations(
    labels: Sequence[ObjectLabel],
    hidden: Sequence[ObjectLabel],
    categories: Sequence[str],
    amodal: bool = False,
    mask_size: tuple[int, int] | None = None,
) -> list[Annotation]:
    """Convert an image's labels to annotations; hidden objects with visible pixels become regions to ignore.

    Args:
        labels: Labels of the objects that pass the set's `LabelFilter`.
        hidden: Labels of the objects that do not.
        categories: The categories to keep, in the order of their labels.
        amodal: Use boxes of whole objects.
        mask_size: Height and width of the image, to decode masks; None for no masks.

    Raises:
        ValueError: If a label lacks a box or a mask that is requested, or has the mask of an image of another size.
    """
    found, known = [], NameIndex(categories)
    for label in labels:
        number = known.get(label.category)
        if number is None:
            continue
        box = label.amodal_bbox if amodal else label.bbox
        if box is None or (mask_size and label.segmentation is None):
            raise ValueError(f"the label of object {label.object} has no {'mask' if box else 'box'}")
        found.append(
            Annotation(
                corners(box),
                number + 1,
                occlusion=int(occlusion_level(torch.tensor([float(label.visibility)]))),
                truncation=float(label.truncation or 0.0),
                mask=decode_mask(label.segmentation, mask_size) if mask_size else None,
            )
        )
    return found + [
        Annotation(corners(label.bbox), number + 1, region=True)
        for label in hidden
        if label.bbox is not None and (number := known.get(label.category)) is not None
    ]
