"""KITTI's object detection format: label files, frame lists, writer and reader (Geiger et al. 2012)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ms2.core.errors import UserError
from ms2.core.files import expand_path
from ms2.core.images import read_image
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.labelled_set import (
    MIN_SIDE,
    Annotation,
    Example,
    LabelledSet,
    check_limit,
    choose_categories,
    stack_annotations,
)
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord, ObjectLabel
from ms2.datasets.resize_crop import ResizeCrop, box_area, image_size
from ms2.metrics.average_precision import occlusion_level
from ms2.render.scene3d.calibration import KittiError, calibration_text

CLASS_BY_TYPE = {
    "Car": "car",
    "Van": "car",
    "Truck": "truck",
    "Tram": "truck",
    "Pedestrian": "pedestrian",
    "Person_sitting": "pedestrian",
    "Cyclist": "cyclist",
}
"""Default class for each type of KITTI's objects; Misc and DontCare have none."""
NEIGHBOURS = ("Van", "Person_sitting")
"""KITTI's neighbouring types: trained on as cars and pedestrians, but ignored by evaluation."""
DONT_CARE = "DontCare"
UNKNOWN_3D = "-1 -1 -1 -1000 -1000 -1000 -10"
"""KITTI's values for the size, position and yaw of an object with a box in the image only."""


# -- label files and frame lists -----------------------------------------------------------------------


class KittiObject(NamedTuple):
    """One line of a KITTI label file.

    Attributes:
        type: ``Car``, ``Pedestrian``, ... or ``DontCare``.
        truncation: Fraction outside the image, 0 to 1.
        occlusion: 0 fully visible, 1 partly, 2 largely occluded, 3 unknown.
        alpha: Observation angle in radians.
        box: Left, top, right and bottom in pixels.
        size: Height, width and length in metres.
        position: The middle of its bottom in the camera's coordinates (x right, y down, z ahead), in metres.
        yaw: Angle about the camera's y axis in radians.
    """

    type: str
    truncation: float
    occlusion: int
    alpha: float
    box: tuple[float, float, float, float]
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float


def read_labels(path: Path) -> list[KittiObject]:
    """Read the objects of a file in ``label_2``.

    Raises:
        KittiError: If there is no such file, or a line does not have 15 fields (16 with a score).
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise KittiError(f"{path}: there is no such label file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KittiError(f"{path}: can't be read ({error})") from error
    return [_parse_object(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _parse_object(line: str, path: Path, number: int) -> KittiObject:
    fields = line.split()
    if len(fields) not in (15, 16):
        raise KittiError(
            f"{path}, line {number}: {len(fields)} fields, where type, truncation, occlusion, alpha, box (4), "
            "size (3), position (3) and yaw are 15"
        )
    try:
        v = [float(field) for field in fields[1:15]]
    except ValueError as error:
        raise KittiError(f"{path}, line {number}: {error}") from None
    return KittiObject(
        fields[0], v[0], int(v[1]), v[2], (v[3], v[4], v[5], v[6]), (v[7], v[8], v[9]), (v[10], v[11], v[12]), v[13]
    )


def training_folder(root: Path) -> Path:
    """Find the folder that holds ``image_2``: ``training``, or the root itself.

    Raises:
        KittiError: If there is none.
    """
    for folder in (root / "training", root):
        if (folder / "image_2").is_dir():
            return folder
    raise KittiError(
        f"{root.absolute()} is not KITTI's object detection set: it has no training/image_2. Give the folder into "
        "which data_object_image_2.zip was unpacked; for images in other folders use the target Folder."
    )


def frames_of_list(file: Path, paths: Sequence[Path]) -> list[Path]:
    """Select the images of a frame list in ``ImageSets``, in its order.

    Raises:
        KittiError: If there is no such list, it is empty, or lists frames that have no image.
    """
    if not file.is_file():
        lists = sorted(other.stem for other in file.parent.glob("*.txt")) if file.parent.is_dir() else []
        raise KittiError(
            f"{file}: there is no such list of frames. Available: {', '.join(lists) or 'none'}; split: null takes all"
        )
    image = {path.stem: path for path in paths}
    frames = file.read_text(encoding="ascii").split()
    missing = [frame for frame in frames if frame not in image]
    if missing:
        raise KittiError(
            f"{file} lists {len(missing)} of {len(frames)} frames that have no image, the first {missing[0]}: unpack "
            "all images, take these lines out, or use split: null for the images that are there"
        )
    if not frames:
        raise KittiError(f"{file} lists no frames")
    return [image[frame] for frame in frames]


def _frames_to_exclude(file: Path) -> set[str]:
    """Read a frame list, which may list frames without an image."""
    if not file.is_file():
        raise KittiError(f"{file}: there is no such list of frames to exclude")
    return set(file.read_text(encoding="ascii").split())


# -- writer --------------------------------------------------------------------------------------------


class KittiFormat(Format):
    """KITTI's detection format: ``training/image_2``, ``label_2``, ``calib`` and ``ImageSets/train.txt``.

    Boxes enclose whole objects, clipped to the image, as KITTI's do. Types are the classes' names, capitalised.
    Hidden objects of which some pixels are visible are DontCare. 2D worlds have no 3D boxes, which KITTI writes as -1
    and -1000, and no ``calib``.
    """

    def check(self, plan: Plan) -> None:
        """Raise an error unless images are PNG, which KITTI's readers look for.

        Raises:
            UserError: If the images are others.
        """
        if plan.image != "png":
            raise UserError("the format kitti has PNG images: leave --image jpeg out, or the format kitti")

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write one label file per image; hard-link images if the file system supports it."""
        stems = []
        for record in records():
            stem = record.stem
            stems.append(stem)
            folder.link(f"training/image_2/{stem}.png", record.image.file)
            folder.write_if_changed(f"training/label_2/{stem}.txt", self._text(record))
            if record.image.projection is not None:
                folder.write_if_changed(f"training/calib/{stem}.txt", calibration_text(record.image.projection))
        folder.write("ImageSets/train.txt", "".join(f"{stem}\n" for stem in stems))

    def _text(self, record: ImageRecord) -> str:
        lines = [self._line(label) for label in record.labels]
        lines += [
            f"{DONT_CARE} -1 -1 -10 {_box_text(label.bbox)} {UNKNOWN_3D}"
            for label in record.hidden
            if label.bbox is not None
        ]
        return "".join(f"{line}\n" for line in lines)

    def _line(self, label: ObjectLabel) -> str:
        alpha, space = -10.0, UNKNOWN_3D
        if label.box3d is not None:
            h, w, length, x, y, z, yaw = label.box3d
            alpha = (yaw - math.atan2(x, z) + math.pi) % (2 * math.pi) - math.pi
            space = f"{h:.2f} {w:.2f} {length:.2f} {x:.2f} {y:.2f} {z:.2f} {yaw:.2f}"
        level = int(occlusion_level(torch.tensor([float(label.visibility)])))
        assert label.amodal_bbox is not None
        box = _box_text(label.amodal_bbox)
        return f"{label.category.capitalize()} {label.truncation or 0.0:.2f} {level} {alpha:.2f} {box} {space}"

    def usage(self) -> str:
        """Return usage with torchvision, which expects another folder name."""
        return (
            "KITTI's object detection layout, `training/` and `ImageSets/`. For torchvision, which looks under "
            "`Kitti/raw`:\n\n"
            "```python\nfrom pathlib import Path\nfrom torchvision.datasets import Kitti\n\n"
            'if not Path("Kitti/raw").exists():\n    Path("Kitti").mkdir(exist_ok=True)\n'
            '    Path("Kitti/raw").symlink_to("..")\ndata = Kitti(".")\n```'
        )


def _box_text(box: Sequence[float]) -> str:
    x, y, w, h = box
    return f"{x:.2f} {y:.2f} {x + w:.2f} {y + h:.2f}"


# -- reader --------------------------------------------------------------------------------------------


class KittiSet(LabelledSet):
    """KITTI's object detection frames with their labels.

    Images are resized to cover the size, and cropped around the centre; boxes likewise. The part of an object that is
    cropped counts as truncated. ``DontCare`` areas are regions of any category, which evaluation leaves out.

    Args:
        root: Folder that holds ``training`` and ``ImageSets``.
        categories: Categories in the order of their labels.
        split: Name of a frame list in ``ImageSets``; null for all frames.
        exclude: Name of a frame list to leave out, such as the training frames.
        size: Height and width of the images in pixels; null keeps each frame's own.
        types: Category for each of KITTI's types, as in `ms2.targets.Kitti`.
        neighbours: Types that are trained on as their category, but ignored by evaluation.
        limit: Use only the first n frames; null for all.

    Raises:
        KittiError: If folders are missing, a listed frame has no image, or no frame is left.
        UserError: If no type has one of the categories.
    """

    amodal = True
    protocol = "kitti"

    def __init__(
        self,
        root: Path | str,
        categories: Sequence[str] = ("car", "pedestrian", "cyclist"),
        split: str | None = None,
        exclude: str | None = None,
        size: tuple[int, int] | None = None,
        types: Mapping[str, str] | None = None,
        neighbours: Sequence[str] = NEIGHBOURS,
        limit: int | None = None,
    ) -> None:
        root = expand_path(root)
        types = types or CLASS_BY_TYPE
        self.categories = choose_categories(categories, list(dict.fromkeys(types.values())), "types")
        self.labels = {name: self.categories.index(own) + 1 for name, own in types.items() if own in self.categories}
        self.size, self.neighbours = size, frozenset(neighbours)
        self.folder = training_folder(root)
        self.frames = sorted((self.folder / "image_2").glob("*.png"))
        lists = root / "ImageSets"
        if split is not None:
            self.frames = frames_of_list(lists / f"{split}.txt", self.frames)
        if exclude is not None:
            excluded = _frames_to_exclude(lists / f"{exclude}.txt")
            self.frames = [path for path in self.frames if path.stem not in excluded]
        if not self.frames:
            raise KittiError(f"{root.absolute()} has no frames of split {split} that are not in {exclude}")
        self.frames = self.frames[: check_limit(limit)]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Example:
        """Return a frame and its annotations."""
        resize = ResizeCrop(image_size(self.frames[index]), self.size)
        image = read_image(self.frames[index], size=self.size)
        found = [
            self._annotation(one, resize)
            for one in self._objects(index)
            if one.type == DONT_CARE or one.type in self.labels
        ]
        return image, stack_annotations(image, found, scale=resize.scale)

    def _objects(self, index: int) -> list[KittiObject]:
        return read_labels(self.folder / "label_2" / f"{self.frames[index].stem}.txt")

    def _annotation(self, found: KittiObject, resize: ResizeCrop) -> Annotation:
        box = resize.transform_box(found.box)
        if found.type == DONT_CARE:
            return Annotation(box, 0, region=True)
        visible = box_area(resize.clip_box(box)) / max(box_area(box), MIN_SIDE)
        return Annotation(
            box,
            self.labels[found.type],
            ignore=found.type in self.neighbours,
            occlusion=found.occlusion,
            truncation=1 - (1 - max(0.0, found.truncation)) * visible,
        )
