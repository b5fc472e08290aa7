"""Labelled images for object detectors: sets that ms2 generated, COCO files, and KITTI's real frames.

Each gives pairs of an image, uint8[3 h w], and a target as torchvision's detection models take it and
`ms2.average_precision` reads it: ``boxes`` (float[n 4], x0, y0, x1, y1 in pixels), ``labels`` (int[n], from 1),
``masks`` (uint8[n h w], if asked for), and what evaluation alone looks at: ``ignore``, ``height``, ``occlusion``,
``truncation``, ``scale``, ``regions`` and ``region_labels``.
"""

import contextlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ms2.core.errors import UserError, suggest
from ms2.core.files import typed_path
from ms2.core.images import read_image
from ms2.core.settings import Configured
from ms2.metrics.average_precision import occlusion_level
from ms2.render.scene3d.calibration import KittiError
from ms2.targets.kitti import TYPES, KittiObject, _folder, _listed, read_labels

Target = dict[str, Tensor]
Example = tuple[UInt8[Tensor, "3 h w"], Target]
NEIGHBOURS = ("Van", "Person_sitting")
"""KITTI's types that are learned as cars and pedestrians, but not counted when a detector is measured."""
MIN_SIDE = 1e-3
"""Thinner boxes, in pixels, are none: torchvision's models take no empty ones."""
BROKEN = (AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a file that is not what it should be raises."""


class DataSetError(UserError):
    """A labelled data set that is none, or not complete."""


class Thing(NamedTuple):
    """One labelled object, in pixels of the image as it is given.

    Attributes:
        box: x0, y0, x1, y1.
        label: Number of its category, from 1; 0 for a region that holds nobody knows what.
        region: Whether it isn't an object that could be learned, but an area not to be counted.
        ignore: Whether it is learned but not counted.
        occlusion: KITTI's level.
        truncation: Share outside the image.
        mask: Its pixels, if asked for.
    """

    box: tuple[float, float, float, float]
    label: int
    region: bool = False
    ignore: bool = False
    occlusion: int = 0
    truncation: float = 0.0
    mask: Bool[np.ndarray, "h w"] | None = None


class DetectionSet(Configured, Dataset[Example], ABC):
    """Images and targets by number.

    Attributes:
        categories: Names of the categories, that of label 1 first.
    """

    categories: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """An image and its target."""


class GeneratedSet(DetectionSet):
    """A data set that `ms2 generate` wrote, read from its records.

    Hidden objects, below the threshold of visibility, are regions that are neither learned nor counted.

    Args:
        folder: The folder with ``dataset.json``.
        categories: Categories to learn, in the order of their labels; all of the set by default.
        masks: Whether to give masks, which Mask R-CNN learns.
        amodal: Boxes around whole objects, as KITTI's are, and not around what is visible of them.
        limit: Use the first so many images only.
        scale: Pixels of the images per pixel of KITTI's, whose heights decide what is easy and hard: 96 / 375 for
            images 96 pixels high.

    Raises:
        DataSetError: If the folder is no such set, or the set is not complete.
        UserError: If a category is none of the set's.
    """

    def __init__(
        self,
        folder: Path | str,
        categories: Sequence[str] | None = None,
        masks: bool = False,
        amodal: bool = False,
        limit: int | None = None,
        scale: float = 1.0,
    ) -> None:
        self.folder, self.masks, self.amodal, self.scale = typed_path(folder).absolute(), masks, amodal, scale
        about = self._about()
        number, offered = about.get("num_scenes"), about.get("categories")
        if not (isinstance(number, int) and isinstance(offered, list) and all(isinstance(n, str) for n in offered)):
            raise DataSetError(f"{self.folder / 'dataset.json'} does not say num_scenes and categories: it is damaged")
        self.categories = _chosen(categories, offered, str(self.folder))
        scenes = sorted((self.folder / "scenes").glob("*.json"))
        if len(scenes) < number:
            raise DataSetError(
                f"{self.folder} is not complete: it holds {len(scenes)} of {number} scenes. Run the ms2 generate that "
                "began it once more: it makes what is missing."
            )
        self.scenes = scenes[: _checked(limit)]

    def _about(self) -> dict[str, Any]:
        path = self.folder / "dataset.json"
        if not self.folder.is_dir():
            raise DataSetError(f"there is no folder {self.folder}: make a data set there with ms2 generate")
        if not path.is_file():
            raise DataSetError(
                f"{self.folder} is no data set of ms2: it has no dataset.json. Make one with ms2 generate, or read "
                "others as COCO or KITTI sets."
            )
        return _read_json(path)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> Example:
        """An image and its target."""
        path = self.scenes[index]
        record = _read_json(path)
        with _reading(path):
            image = read_image(_inside(self.folder, record["image"]["file"]))
            labels = [self._thing(found) for found in record["labels"] if found["category"] in self.categories]
            hidden = [
                Thing(_edges(found["bbox"]), self._label(found), region=True)
                for found in record["hidden"]
                if "bbox" in found and found["category"] in self.categories
            ]
            return image, _target(image, [*labels, *hidden], self.masks, self.scale)

    def _label(self, found: Mapping[str, Any]) -> int:
        return self.categories.index(found["category"]) + 1

    def _thing(self, found: Mapping[str, Any]) -> Thing:
        return Thing(
            _edges(found["amodal_bbox" if self.amodal else "bbox"]),
            self._label(found),
            occlusion=int(occlusion_level(torch.tensor([float(found["visibility"])]))),
            truncation=float(found.get("truncation", 0.0)),
            mask=_mask(found["segmentation"]) if self.masks else None,
        )


class CocoSet(DetectionSet):
    """Images with labels in COCO's format, of any origin.

    Crowds (``iscrowd``) are regions of their category.

    Args:
        images: Folder of the images.
        annotations: The JSON file.
        categories: Categories to learn, in the order of their labels; all of the file by default.
        names: Category that stands for each of the file's, where they are called otherwise.
        size: Height and width to bring images to, cut to that aspect; null keeps each image's own.
        masks: Whether to give masks, which Mask R-CNN learns.
        limit: Use the first so many images only.

    Raises:
        DataSetError: If the file can't be read.
        UserError: If a category is none of the file's.
    """

    def __init__(
        self,
        images: Path | str,
        annotations: Path | str,
        categories: Sequence[str] | None = None,
        names: dict[str, str] | None = None,
        size: tuple[int, int] | None = None,
        masks: bool = False,
        limit: int | None = None,
    ) -> None:
        from pycocotools.coco import COCO

        if masks and size is not None:
            raise UserError("masks are not scaled: leave size out, or masks")
        self.folder, self.masks, self.size = typed_path(images).absolute(), masks, size
        path = typed_path(annotations)
        if not path.is_file():
            raise DataSetError(f"there is no file {path.absolute()}: give the annotations of a COCO set")
        with _reading(path):
            with contextlib.redirect_stdout(io.StringIO()):  # it tells how long it took
                self.coco = COCO(str(path))
            offered = {
                kind["id"]: (names or {}).get(kind["name"], kind["name"]) for kind in self.coco.dataset["categories"]
            }
            self.images = sorted(self.coco.imgs)[: _checked(limit)]
        self.path = path
        self.categories = _chosen(categories, list(dict.fromkeys(offered.values())), str(path))
        self.labels = {i: self.categories.index(name) + 1 for i, name in offered.items() if name in self.categories}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """An image and its target."""
        number = self.images[index]
        with _reading(self.path):
            file = _inside(self.folder, self.coco.imgs[number]["file_name"])
            found = [thing for thing in self.coco.imgToAnns[number] if thing["category_id"] in self.labels]
            cut = _Cut(_size_of(file), self.size)
            image = read_image(file, size=self.size)
            return image, _target(image, [self._thing(thing, cut) for thing in found], self.masks, cut.scale)

    def _thing(self, found: Mapping[str, Any], cut: "_Cut") -> Thing:
        crowd = bool(found.get("iscrowd", 0))
        return Thing(
            cut.box(_edges(found["bbox"])),
            self.labels[found["category_id"]],
            region=crowd,
            ignore=bool(found.get("ignore", 0)),
            mask=self.coco.annToMask(found).astype(bool) if self.masks and not crowd else None,
        )


class KittiDetection(DetectionSet):
    """Real frames of KITTI's object detection set, with its labels.

    Images are scaled until they cover the size, and cut around their middle; boxes likewise. What is cut off an object
    counts as truncated. ``DontCare`` areas are regions of any category.

    Args:
        root: Folder that holds ``training`` and ``ImageSets``.
        categories: Categories to learn, in the order of their labels.
        split: Name of a list of frames in ``ImageSets``; null for all frames.
        exclude: Name of a list of frames that are left out, such as those that something was trained on.
        size: Height and width of the images in pixels; null keeps each frame's own.
        types: Category that stands for each of KITTI's types, as in `ms2.targets.Kitti`.
        neighbours: Types that are learned as their category, but not counted when a detector is measured.
        limit: Use the first so many frames only.

    Raises:
        KittiError: If the layout is another, a listed frame has no image, or no frame is left.
        UserError: If no type stands for a category.
    """

    def __init__(
        self,
        root: Path | str,
        categories: Sequence[str] = ("car", "pedestrian", "cyclist"),
        split: str | None = None,
        exclude: str | None = None,
        size: tuple[int, int] | None = None,
        types: dict[str, str] | None = None,
        neighbours: Sequence[str] = NEIGHBOURS,
        limit: int | None = None,
    ) -> None:
        root = typed_path(root)
        types = types or TYPES
        self.categories = _chosen(categories, list(dict.fromkeys(types.values())), "types")
        self.labels = {kind: self.categories.index(name) + 1 for kind, name in types.items() if name in self.categories}
        self.size, self.neighbours = size, frozenset(neighbours)
        self.folder = _folder(root)
        self.frames = sorted((self.folder / "image_2").glob("*.png"))
        lists = root / "ImageSets"
        if split is not None:
            self.frames = _listed(lists / f"{split}.txt", self.frames)
        if exclude is not None:
            out = _numbers(lists / f"{exclude}.txt")
            self.frames = [path for path in self.frames if path.stem not in out]
        if not self.frames:
            raise KittiError(f"{root.absolute()} has no frames of split {split} that are not in {exclude}")
        self.frames = self.frames[: _checked(limit)]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Example:
        """A frame and its target."""
        path = self.frames[index]
        found = read_labels(self.folder / "label_2" / f"{path.stem}.txt")
        cut = _Cut(_size_of(path), self.size)
        image = read_image(path, size=self.size)
        things = [self._thing(thing, cut) for thing in found if thing.type == "DontCare" or thing.type in self.labels]
        return image, _target(image, things, False, cut.scale)

    def _thing(self, found: KittiObject, cut: "_Cut") -> Thing:
        box = cut.box(found.box)
        if found.type == "DontCare":
            return Thing(box, 0, region=True)
        left = _area(cut.inside(box)) / max(_area(box), MIN_SIDE)
        return Thing(
            box,
            self.labels[found.type],
            ignore=found.type in self.neighbours,
            occlusion=found.occlusion,
            truncation=1 - (1 - max(0.0, found.truncation)) * left,
        )


def collate(examples: Sequence[Example]) -> tuple[list[Tensor], list[Target]]:
    """A batch as torchvision's detection models take it: lists, since images hold different numbers of objects."""
    return [image for image, _ in examples], [target for _, target in examples]


class _Cut:
    """Where a picture's points go when it is scaled until it covers a size, and cut around its middle.

    Args:
        own: Height and width of the picture.
        size: Height and width to bring it to; None keeps its own.

    Attributes:
        scale: Pixels per pixel of the picture.
    """

    def __init__(self, own: tuple[int, int], size: tuple[int, int] | None) -> None:
        self.size = size or own
        self.scale = max(new / old for new, old in zip(self.size, own, strict=True))
        self.top, self.left = ((old - new / self.scale) / 2 for new, old in zip(self.size, own, strict=True))

    def box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box's new place, which may lie beyond the edges."""
        x0, y0, x1, y1 = box
        return (
            (x0 - self.left) * self.scale,
            (y0 - self.top) * self.scale,
            (x1 - self.left) * self.scale,
            (y1 - self.top) * self.scale,
        )

    def inside(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """The part of a new box that lies within the edges; its sides may be negative."""
        height, width = self.size
        return max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)


def _area(box: tuple[float, float, float, float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _target(image: UInt8[Tensor, "3 h w"], things: Sequence[Thing], masks: bool, scale: float) -> Target:
    """The target of an image; boxes are cut by its edges, and left out where nothing remains."""
    height, width = image.shape[1:]
    boxes = torch.tensor([thing.box for thing in things], dtype=torch.float32).reshape(-1, 4)
    full_height = (boxes[:, 3] - boxes[:, 1]) / scale
    boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > MIN_SIDE).all(1)
    region = torch.tensor([thing.region for thing in things], dtype=torch.bool)
    labels = torch.tensor([thing.label for thing in things], dtype=torch.long)
    objects = kept & ~region
    target = {
        "boxes": boxes[objects],
        "labels": labels[objects],
        "ignore": torch.tensor([thing.ignore for thing in things], dtype=torch.bool)[objects],
        "height": full_height[objects],
        "occlusion": torch.tensor([thing.occlusion for thing in things], dtype=torch.long)[objects],
        "truncation": torch.tensor([thing.truncation for thing in things], dtype=torch.float32)[objects],
        "scale": torch.tensor(scale, dtype=torch.float32),
        "regions": boxes[kept & region],
        "region_labels": labels[kept & region],
    }
    if masks:
        target["masks"] = torch.zeros(int(objects.sum()), height, width, dtype=torch.uint8)
        for row, i in enumerate(objects.nonzero()[:, 0].tolist()):
            target["masks"][row] = torch.from_numpy(things[i].mask)
    return target


def _numbers(file: Path) -> set[str]:
    """What a list of frames holds, which may name more than there are."""
    if not file.is_file():
        raise KittiError(f"{file}: there is no such list of frames, which are to be left out")
    return set(file.read_text(encoding="ascii").split())


def _mask(segmentation: Mapping[str, Any]) -> Bool[np.ndarray, "h w"]:
    from pycocotools import mask

    found: Bool[np.ndarray, "h w"] = mask.decode(segmentation).astype(bool)
    return found


def _edges(box: Sequence[float]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of a box given as x, y, width and height."""
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def _size_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError:
        height, width = read_image(path).shape[1:]  # which says what is wrong
        return height, width


def _inside(folder: Path, name: str) -> Path:
    """A file that data names, which must lie in a folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataSetError(f"{name!r} is named as an image, but lies outside {folder}: that set is not to be trusted")
    return path


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file is at fault where what it holds is not what it should be."""
    try:
        yield
    except UserError:  # says so by itself
        raise
    except BROKEN as error:
        raise DataSetError(f"{path} is damaged, or not what it should be: {error!r}") from error


def _read_json(path: Path) -> dict[str, Any]:
    with _reading(path):
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise DataSetError(f"{path} is damaged: it holds no object of JSON")
        return found


def _checked(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: give the number of images to use, 1 or more, or null for all")
    return limit


def _chosen(wanted: Sequence[str] | None, offered: Sequence[str], where: str) -> tuple[str, ...]:
    """The categories that are asked for, or all."""
    if wanted is None:
        return tuple(offered)
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"categories are {list(wanted)}: name one or more, each once")
    for name in wanted:
        if name not in offered:
            raise UserError(f"{where} has no category {name!r}. {suggest(name, offered)}")
    return tuple(wanted)
