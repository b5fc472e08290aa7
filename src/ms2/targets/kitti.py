"""KITTI's object detection set: images to learn from, and labels to measure by (Geiger et al., 2012)."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from ms2.core.files import typed_path
from ms2.core.images import Fit
from ms2.render.scene3d.calibration import KittiError, read_projection
from ms2.scene.batch import SceneBatch
from ms2.targets.folder import Folder
from ms2.targets.image_folder import OnError, name_some
from ms2.world import World

__all__ = ["Kitti", "KittiError", "KittiObject", "read_labels", "read_projection"]
TYPES = {
    "Car": "car",
    "Van": "car",
    "Truck": "truck",
    "Tram": "truck",
    "Pedestrian": "pedestrian",
    "Person_sitting": "pedestrian",
    "Cyclist": "cyclist",
}
"""Class that stands for each type of KITTI's objects; Misc and DontCare stand for none."""


class KittiObject(NamedTuple):
    """One line of a label file.

    Attributes:
        type: ``Car``, ``Pedestrian``, ... or ``DontCare``.
        truncation: Share outside the image, 0 to 1.
        occlusion: 0 fully visible, 1 partly, 2 largely occluded, 3 unknown.
        alpha: Angle at which the camera sees it, in radians.
        box: Left, top, right and bottom in pixels.
        size: Height, width and length in metres.
        place: x to the right, y down and z ahead in the camera's coordinates, of the middle of its bottom, in metres.
        yaw: Angle about the camera's y axis in radians.
    """

    type: str
    truncation: float
    occlusion: int
    alpha: float
    box: tuple[float, float, float, float]
    size: tuple[float, float, float]
    place: tuple[float, float, float]
    yaw: float


def read_labels(path: Path) -> list[KittiObject]:
    """The objects of a file in ``label_2``.

    Raises:
        KittiError: If there is no such file, or a line is not 15 fields (16 with a score).
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise KittiError(f"{path}: there is no such label file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KittiError(f"{path}: can't be read ({error})") from error
    return [_object(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _object(line: str, path: Path, number: int) -> KittiObject:
    fields = line.split()
    if len(fields) not in (15, 16):
        raise KittiError(
            f"{path}, line {number}: {len(fields)} fields, where type, truncation, occlusion, alpha, box (4), "
            "size (3), place (3) and yaw are 15"
        )
    try:
        v = [float(field) for field in fields[1:15]]
    except ValueError as error:
        raise KittiError(f"{path}, line {number}: {error}") from None
    return KittiObject(
        fields[0], v[0], int(v[1]), v[2], (v[3], v[4], v[5], v[6]), (v[7], v[8], v[9]), (v[10], v[11], v[12]), v[13]
    )


class Kitti(Folder):
    """Images of KITTI's object detection set, in its own layout: ``training/image_2``, ``label_2`` and ``ImageSets``.

    Labels are read to compare with afterwards, never to learn from; a set without them is a target like any other.

    Args:
        world: Whose renderer sets the images' size, and whose grammar the classes.
        root: Folder that holds ``training``.
        split: Name of a list of frames in ``ImageSets``, such as ``train``; null for all frames.
        types: Class of the grammar that stands for each of KITTI's types; types without one are not counted. By
            default cars and vans are ``car``, trucks and trams ``truck``, people ``pedestrian``.
        fit: How images of another shape are brought to the renderer's: cut, padded with black, or stretched.
        on_error: What to do with frames that can't be read.
        limit: Use the first so many frames only.

    Raises:
        KittiError: If the layout is another, or a listed frame has no image.
    """

    annotated = True

    def __init__(
        self,
        world: World,
        root: Path | str,
        split: str | None = "train",
        types: dict[str, str] | None = None,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: int | None = None,
    ) -> None:
        self.world, self.on_error, self.types = world, on_error, types or TYPES
        root = typed_path(root)
        self.folder = _folder(root)
        super().__init__(world, self.folder / "image_2", fit, on_error)
        if split is not None:
            self.images.paths = _listed(root / "ImageSets" / f"{split}.txt", self.images.paths)
        self.images.paths = self.images.paths[:limit]

    def verify(self) -> None:
        """Decode every image once, and read every label file if there are any."""
        super().verify()
        bad = {path: error for path in self.images.paths if (error := self._label_error(path))}
        if not bad:
            return
        text = name_some(f"{len(bad)} frames have no usable labels", list(bad.values()))
        if self.on_error == "raise":
            raise KittiError(f"{text}\nMend or remove them, or leave these frames out with on_error: skip.")
        warnings.warn(f"{text}\nThese frames are left out.", stacklevel=2)
        self.images.paths = [path for path in self.images.paths if path not in bad]

    def _label_error(self, image: Path) -> str:
        if not self.labelled:
            return ""
        try:
            read_labels(self._label(image))
        except KittiError as error:
            return str(error)
        return ""

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return (self.folder / "label_2").is_dir()

    def _label(self, image: Path) -> Path:
        return self.folder / "label_2" / f"{image.stem}.txt"

    @property
    def truth(self) -> SceneBatch | None:  # type: ignore[override]
        """The labelled objects of each frame as scenes, for evaluation only; None without labels."""
        return self._truth if self.labelled else None

    @cached_property
    def _truth(self) -> SceneBatch:
        classes = self.world.grammar.classes
        number = {kind: classes.index(name) for kind, name in self.types.items() if name in classes}
        rows = [
            [number[thing.type] for thing in read_labels(self._label(path)) if thing.type in number]
            for path in self.images.paths
        ]
        most = max([1, *map(len, rows)])
        found = torch.tensor([row + [-1] * (most - len(row)) for row in rows])
        return SceneBatch(found, torch.full_like(found, -1))


def _folder(root: Path) -> Path:
    for folder in (root / "training", root):
        if (folder / "image_2").is_dir():
            return folder
    raise KittiError(
        f"{root.absolute()} is not KITTI's object detection set: it has no training/image_2. Give the folder into "
        "which data_object_image_2.zip was unpacked; for images without that layout use the target Folder."
    )


def _listed(file: Path, paths: Sequence[Path]) -> list[Path]:
    """The images that a file of frame numbers lists, in its order."""
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
