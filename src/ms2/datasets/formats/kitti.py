"""KITTI's object detection format: writer and reader (Geiger et al. 2012)."""

import math
from collections.abc import Mapping, Sequence

import torch

from ms2.core.bounds import Dimension, PositiveInt
from ms2.core.errors import OnError, UserError, format_examples, suggest
from ms2.core.images import image_header, read_image
from ms2.core.paths import UserPath, expand_path
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.formats.kitti_files import (
    DONT_CARE,
    PIXEL_CENTRE,
    KittiObject,
    categories_by_type,
    check_types,
    label_file,
    read_labels,
    select_frames,
)
from ms2.datasets.labelled_set import (
    MIN_SIDE,
    Annotation,
    Example,
    LabelledSet,
    NameIndex,
    choose_categories,
    stack_annotations,
    usable_items,
)
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageFile, ImageRecord, ObjectLabel
from ms2.datasets.resize_crop import ResizeCrop, box_area
from ms2.metrics.average_precision import occlusion_level
from ms2.render.scene3d.calibration import KittiError, calibration_text

NEIGHBOURS = ("Van", "Person_sitting")
"""KITTI's neighbouring types: trained on as cars and pedestrians, but ignored by evaluation."""
UNKNOWN_3D = "-1 -1 -1 -1000 -1000 -1000 -10"
"""KITTI's values for the size, position and yaw of an object with a box in the image only."""


# -- writer --------------------------------------------------------------------------------------------


class KittiFormat(Format):
    """KITTI's detection format: ``training/image_2``, ``label_2``, ``calib`` and ``ImageSets/train.txt``.

    Boxes enclose whole objects, clipped to the image, as KITTI's do. They and the projection in ``calib`` have KITTI's
    pixels, whose centres are at whole numbers, 0 to width - 1. Types are the classes' names, capitalised.
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
        lines = [
            f"{label.category.capitalize()} {label.truncation or 0.0:.2f} {label_columns(label, record.image)}"
            for label in record.labels
        ]
        lines += [f"{DONT_CARE} -1 {columns}" for columns in ignored_columns(record.hidden, record.image)]
        return "".join(f"{line}\n" for line in lines)

    def usage(self) -> str:
        """Return usage with torchvision, which expects another folder name."""
        return (
            "KITTI's object detection layout, `training/` and `ImageSets/`. For torchvision, which looks under "
            "`Kitti/raw`:\n\n"
            "```python\nfrom pathlib import Path\nfrom torchvision.datasets import Kitti\n\n"
            'if not Path("Kitti/raw").exists():\n    Path("Kitti").mkdir(exist_ok=True)\n'
            '    Path("Kitti/raw").symlink_to("..")\ndata = Kitti(".")\n```'
        )


def label_columns(label: ObjectLabel, image: ImageFile) -> str:
    """Format a label's columns from its occlusion on: angle, box, size, position and yaw."""
    alpha, space = -10.0, UNKNOWN_3D
    if label.box3d is not None:
        h, w, length, x, y, z, yaw = label.box3d
        alpha = (yaw - math.atan2(x, z) + math.pi) % (2 * math.pi) - math.pi
        space = f"{h:.2f} {w:.2f} {length:.2f} {x:.2f} {y:.2f} {z:.2f} {yaw:.2f}"
    level = int(occlusion_level(torch.tensor([float(label.visibility)])))
    assert label.amodal_bbox is not None
    return f"{level} {alpha:.2f} {_box_text(label.amodal_bbox, image)} {space}"


def ignored_columns(hidden: Sequence[ObjectLabel], image: ImageFile) -> list[str]:
    """Format the same columns of the areas that evaluation leaves out: what is visible of hidden objects."""
    boxes = [label.bbox for label in hidden if label.bbox is not None]
    return [f"-1 -10 {_box_text(box, image)} {UNKNOWN_3D}" for box in boxes]


def _box_text(box: Sequence[float], image: ImageFile) -> str:
    """Convert a box from pixel edges to KITTI's pixel centres, clipped to the centres of the first and last pixels."""
    x, y, w, h = box
    places = ((x, image.width), (y, image.height), (x + w, image.width), (y + h, image.height))
    return " ".join(f"{min(max(place - PIXEL_CENTRE, 0.0), side - 1.0):.2f}" for place, side in places)


# -- reader --------------------------------------------------------------------------------------------


class KittiSet(LabelledSet):
    """KITTI's object detection frames with their labels.

    Images are resized to cover the size, and cropped around the centre; boxes likewise. The part of an object that is
    cropped counts as truncated. ``DontCare`` areas are regions of any category, which evaluation leaves out. All labels
    are checked when the set is made. Types are matched whatever their case.

    Args:
        root: Folder that holds ``training`` and ``ImageSets``.
        categories: Categories in the order of their labels.
        split: Name of a frame list in ``ImageSets``; null for all frames.
        exclude: Name of a frame list to leave out, such as the training frames.
        size: Height and width of the images in pixels; null keeps each frame's own.
        types: Category for each of KITTI's types, as in `ms2.targets.Kitti`.
        neighbours: Types that are trained on as their category, but ignored by evaluation.
        limit: Use only the first n frames; null for all.
        on_error: How to handle frames whose image or labels cannot be read: "raise", or "skip" with a warning.

    Raises:
        KittiError: If folders are missing, a listed frame has no image, a label cannot be read, no object is of a known
            type, or no frame is left.
        UserError: If no type has one of the categories.
    """

    amodal = True
    protocol = "kitti"

    def __init__(
        self,
        root: UserPath,
        categories: Sequence[str] = ("car", "pedestrian", "cyclist"),
        split: str | None = None,
        exclude: str | None = None,
        size: tuple[Dimension, Dimension] | None = None,
        types: Mapping[str, str] | None = None,
        neighbours: Sequence[str] = NEIGHBOURS,
        limit: PositiveInt | None = None,
        on_error: OnError = "raise",
    ) -> None:
        root, types = expand_path(root), categories_by_type(types)
        self.categories = choose_categories(categories, list(dict.fromkeys(types.values())), "types")
        self.size, self.types = size, types
        self._types, self._categories = NameIndex(list(types)), NameIndex(self.categories)
        self._neighbours = NameIndex(_known_neighbours(neighbours, types))
        self.frames = select_frames(root, split, exclude, on_error)[:limit]
        self.frames = [self.frames[i] for i in usable_items(self, on_error)]
        objects = self._read_all()
        check_types(objects, types, root.absolute())

    def _read_all(self) -> list[KittiObject]:
        found, bad = list[KittiObject](), list[str]()
        for frame in self.frames:
            try:
                found += read_labels(label_file(frame))
            except KittiError as error:
                bad.append(str(error))
        if bad:
            text = format_examples(f"{len(bad)} of {len(self)} frames have no usable labels", bad)
            raise KittiError(f"{text}\nRepair or remove them, or leave these frames out with on_error: skip.")
        return found

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Example:
        """Return a frame and its annotations."""
        frame = self.frames[index]
        resize = ResizeCrop(image_header(frame)[0], self.size)
        image = read_image(frame, size=self.size, exif="refuse")
        found = [self._annotation(one, resize) for one in read_labels(label_file(frame))]
        return image, stack_annotations(image, [one for one in found if one is not None], scale=resize.scale)

    def _annotation(self, found: KittiObject, resize: ResizeCrop) -> Annotation | None:
        """Convert a label; None if its type has none of the categories."""
        x0, y0, x1, y1 = (place + PIXEL_CENTRE for place in found.box)  # from centres of pixels to their edges
        box = resize.transform_box((x0, y0, x1, y1))
        if found.dont_care:
            return Annotation(box, 0, region=True)
        kind = self._types.get(found.type)
        label = None if kind is None else self._categories.get(list(self.types.values())[kind])
        if label is None:
            return None
        visible = box_area(resize.clip_box(box)) / max(box_area(box), MIN_SIDE)
        return Annotation(
            box,
            label + 1,
            ignore=found.type in self._neighbours,
            occlusion=found.occlusion,
            truncation=1 - (1 - max(0.0, found.truncation)) * visible,
        )


def _known_neighbours(neighbours: Sequence[str], types: Mapping[str, str]) -> list[str]:
    """Return the neighbours; raise an error if one of them, other than KITTI's, is no type."""
    for name in neighbours:
        if name not in NameIndex([*types, *NEIGHBOURS]):
            raise UserError(f"neighbours has {name!r}, which is none of the types. {suggest(name, types)}")
    return list(neighbours)
