"""Files of KITTI's object detection set: labels, lists of frames, and the images of the frames (Geiger et al. 2012)."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ms2.core.errors import OnError, UserError, format_examples, suggest
from ms2.core.images import IMAGE_SUFFIXES
from ms2.datasets.labelled_set import NameIndex
from ms2.render.scene3d.calibration import KittiError, read_lines

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
BENCHMARK_TYPES = ("Car", "Pedestrian", "Cyclist")
"""Types that KITTI's benchmark evaluates."""
VALIDATION_LIST = "val"
"""Usual name of the list of frames to test on."""
DONT_CARE = "DontCare"
WITHOUT_CLASS = ("Misc", DONT_CARE)
"""KITTI's types that are of no class."""
PIXEL_CENTRE = 0.5
"""Distance of a pixel's centre from its edges: KITTI's columns and rows are whole numbers at the centres."""
MAX_NUMBER = 1e6
"""Largest number, in pixels, metres or radians, that a label may hold."""
FIELDS = (
    "truncation", "occlusion", "alpha", "left", "top", "right", "bottom", "height", "width", "length", "x", "y", "z",
    "yaw",
)  # fmt: skip
"""Numbers of a label, after its type."""


class KittiObject(NamedTuple):
    """One line of a KITTI label file.

    Attributes:
        type: ``Car``, ``Pedestrian``, ... or ``DontCare``.
        truncation: Fraction outside the image, 0 to 1; -1 if unknown.
        occlusion: 0 fully visible, 1 partly, 2 largely occluded, 3 or -1 unknown.
        alpha: Observation angle in radians.
        box: Left, top, right and bottom in KITTI's pixels, whose centres are at whole numbers.
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

    @property
    def dont_care(self) -> bool:
        """Whether it is an area of unknown content."""
        return self.type.casefold() == DONT_CARE.casefold()


def read_labels(path: Path) -> list[KittiObject]:
    """Read the objects of a file in ``label_2``.

    Raises:
        KittiError: If there is no such file, or a line is no label; names the line.
    """
    return [_parse_object(line, f"{path}, line {number}") for number, line in read_lines(path, "label file")]


def _parse_object(line: str, place: str) -> KittiObject:
    kind, *fields = line.split()
    if len(fields) not in (14, 15):
        raise KittiError(
            f"{place}: {len(fields) + 1} fields, where type, truncation, occlusion, alpha, box (4), size (3), "
            "position (3) and yaw are 15"
        )
    try:
        v = [float(field) for field in fields]
    except ValueError as error:
        raise KittiError(f"{place}: {error}") from None
    for name, value, field in zip((*FIELDS, "score"), v, fields, strict=False):
        if not abs(value) <= MAX_NUMBER or "_" in field:  # so written that NaN is refused too
            raise KittiError(f"{place}: {name} is {field}, which is no number of a label")
    if not (v[0] == -1 or 0 <= v[0] <= 1):
        raise KittiError(f"{place}: truncation is {fields[0]}, where it is a fraction from 0 to 1, or -1 if unknown")
    if v[1] not in (-1, 0, 1, 2, 3):
        raise KittiError(f"{place}: occlusion is {fields[1]}, where it is 0, 1, 2, 3 or -1")
    for i in (7, 8, 9):
        if v[i] < 0 and v[i] != -1:
            raise KittiError(f"{place}: {FIELDS[i]} is {fields[i]}, where it is a length in metres, or -1 if unknown")
    for low, high in ((3, 5), (4, 6)):
        if v[low] > v[high]:
            raise KittiError(
                f"{place}: {FIELDS[low]} is {fields[low]}, and {FIELDS[high]} {fields[high]}: the corners are reversed"
            )
    return KittiObject(
        kind, v[0], int(v[1]), v[2], (v[3], v[4], v[5], v[6]), (v[7], v[8], v[9]), (v[10], v[11], v[12]), v[13]
    )


# -- types of objects ----------------------------------------------------------------------------------


def categories_by_type(types: Mapping[str, str] | None) -> dict[str, str]:
    """Return the category of each type, by default `CLASS_BY_TYPE`.

    Raises:
        UserError: If there are none, or two types differ by their case only.
    """
    if types is None:
        return dict(CLASS_BY_TYPE)
    if not types:
        raise UserError(f"types is empty: give a class for each of KITTI's types, such as {CLASS_BY_TYPE}, or null")
    for name, number in Counter(map(str.casefold, types)).items():
        if number > 1:
            raise UserError(f"types has {name!r} {number} times: types are the same whatever their case")
    return dict(types)


def benchmark_categories(types: Mapping[str, str] | None, classes: Sequence[str]) -> list[str]:
    """Return the categories, among a world's classes, of the types that KITTI's benchmark evaluates.

    Args:
        types: Category by type; None for the default.
        classes: Classes of the world.

    Returns:
        The categories as types spell them; those of all types if the benchmark's have none.
    """
    found, known = categories_by_type(types), NameIndex(classes)
    in_benchmark = [name for kind, name in found.items() if kind in NameIndex(BENCHMARK_TYPES) and name in known]
    return list(dict.fromkeys(in_benchmark or [name for name in found.values() if name in known]))


def check_types(objects: Iterable[KittiObject], types: Mapping[str, str], place: Path) -> None:
    """Warn about objects whose type has no category, which are not counted; Misc and DontCare have none by default.

    Args:
        objects: The labels.
        types: Category by type, of those that are counted.
        place: The folder that the message names.

    Raises:
        KittiError: If there are objects, but none has a category.
    """
    known, default = NameIndex(list(types)), types.items() <= CLASS_BY_TYPE.items()
    found = Counter(one.type for one in objects if not one.dont_care)
    lost = {
        kind: number
        for kind, number in found.most_common()
        if kind not in known and not (default and kind in NameIndex(WITHOUT_CLASS))
    }
    if not lost:
        return
    listed = ", ".join(f"{kind} ({number})" for kind, number in lost.items())
    if not any(kind in known for kind in found):
        raise KittiError(
            f"{place}: no object has a type that is mapped to a class; they are {listed}. "
            f"{suggest(next(iter(lost)), types)} Set types to a class for each type that counts."
        )
    warnings.warn(
        f"{place}: objects of these types are not counted, as types maps them to no class: {listed}", stacklevel=3
    )


# -- frames --------------------------------------------------------------------------------------------


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


def label_file(image: Path) -> Path:
    """Return the label file of a frame's image."""
    return image.parent.parent / "label_2" / f"{image.stem}.txt"


def frame_images(root: Path) -> list[Path]:
    """Return the images of all frames, sorted by the frames' names, which are those of the files without suffix.

    Raises:
        KittiError: If there are none, or two of the same frame.
    """
    folder = training_folder(root) / "image_2"
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise KittiError(f"{folder}: can't be listed ({error.strerror})") from error
    if not files:
        raise KittiError(f"{folder} holds no images: looked for {' '.join(IMAGE_SUFFIXES)}")
    found: dict[str, Path] = {}
    for path in sorted(files):
        if path.stem in found:
            raise KittiError(
                f"{folder} has two images of frame {path.stem}, {found[path.stem].name} and {path.name}: remove one"
            )
        found[path.stem] = path
    return [found[stem] for stem in sorted(found)]


def select_frames(
    root: Path, split: str | None = None, exclude: str | None = None, on_error: OnError = "raise"
) -> list[Path]:
    """Return the images of a split's frames in its order; of all frames without a split.

    Args:
        root: Folder that holds ``training`` and ``ImageSets``.
        split: Name of a frame list in ``ImageSets``; None for all frames.
        exclude: Name of a frame list to leave out, which may list frames without an image.
        on_error: How to handle listed frames without an image, and those listed twice.

    Raises:
        KittiError: If folders or lists are missing, or no frame is left; unless they are skipped, if a listed frame has
            no image, or a frame is listed twice.
    """
    frames = frame_images(root)
    if split is not None:
        frames = _frames_of_list(_list_file(root, split), frames, on_error)
    if exclude is not None:
        file = root / "ImageSets" / f"{exclude}.txt"
        if not file.is_file():
            raise KittiError(f"{file}: there is no such list of frames to exclude")
        excluded = {frame for _, frame in _listed(file)}
        frames = [path for path in frames if path.stem not in excluded]
    if not frames:
        raise KittiError(f"{root.absolute()} has no frames of split {split} that are not in {exclude}")
    return frames


def frame_lists(root: Path) -> list[str]:
    """Return the names of the frame lists in ``ImageSets``."""
    return sorted(file.stem for file in (root / "ImageSets").glob("*.txt"))


def _list_file(root: Path, split: str) -> Path:
    file = root / "ImageSets" / f"{split}.txt"
    if file.is_file():
        return file
    lists = frame_lists(root)
    near = suggest(split, lists) if lists else "Available: none."
    raise KittiError(f"{file}: there is no such list of frames. {near[:-1]}; split: null takes all")


def _listed(file: Path) -> list[tuple[int, str]]:
    """Read the frames of a list, with their lines."""
    return [(number, frame) for number, line in read_lines(file, "list of frames") for frame in line.split()]


def _frames_of_list(file: Path, images: Sequence[Path], on_error: OnError) -> list[Path]:
    image = {path.stem: path for path in images}
    listed = _listed(file)
    if not listed:
        raise KittiError(f"{file} lists no frames")
    first: dict[str, int] = {}
    repeated, missing = [], []
    for number, frame in listed:
        if frame in first:
            repeated.append(f"line {number}: {frame}, as in line {first[frame]}")
        elif frame not in image:
            missing.append(f"line {number}: {frame}")
        first.setdefault(frame, number)
    if repeated:
        text = format_examples(f"{file} lists {len(repeated)} frames again", repeated)
        if on_error == "raise":
            raise KittiError(f"{text}\nTake these lines out, or count them once with on_error: skip.")
        warnings.warn(f"{text}\nThey are counted once.", stacklevel=4)
    if missing:
        text = (
            f"{file} lists {len(missing)} of {len(first)} frames that have no image, the first {missing[0].split()[-1]}"
            f" ({missing[0].split(':')[0]})"
        )
        if on_error == "raise":
            raise KittiError(
                f"{text}: unpack all images, take these lines out, use split: null for the images that are there, or "
                "leave these frames out with on_error: skip"
            )
        warnings.warn(f"{text}; they are left out", stacklevel=4)
    found = [image[frame] for frame in first if frame in image]
    if not found:
        raise KittiError(f"{file} lists no frame that has an image")
    return found
