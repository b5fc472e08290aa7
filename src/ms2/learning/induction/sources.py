"""Read labelled sets as tables of objects: labels alone, no images, so that large sets take seconds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from ms2.core.errors import format_examples
from ms2.core.images import image_header
from ms2.datasets.formats.coco_file import read_coco
from ms2.datasets.formats.kitti_files import read_labels
from ms2.datasets.formats.native import read_record
from ms2.datasets.labelled_set import corners, reading
from ms2.learning.induction.object_table import InductionError, ObjectTable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class LabelledObject(NamedTuple):
    """An object of a scene.

    Attributes:
        label: Index of its class.
        box: x0, y0, x1, y1 as fractions of the image, or None.
        parent: Index of its parent in the scene, or -1.
    """

    label: int
    box: tuple[float, ...] | None
    parent: int = -1


def read_source(path: Path) -> ObjectTable:
    """Read a labelled set.

    Args:
        path: The annotation file of a COCO set; the folder of a data set of ``ms2 generate``; a folder with KITTI's
            ``training/label_2``, or a ``label_2`` itself; or a folder in YOLO's layout, with ``data.yaml`` and
            ``labels``.

    Raises:
        InductionError: If it is none of these, or holds fewer than two scenes or no objects.
        UserError: If a file is damaged; the message names it.
    """
    if not path.exists():
        raise InductionError(f"there is no {path}: give a labelled set")
    if path.is_file() and path.suffix == ".json":
        table = _coco(path)
    elif (path / "dataset.json").is_file():
        table = _records(sorted((path / "scenes").glob("*.json")))
    elif (path / "training" / "label_2").is_dir() or path.name == "label_2":
        table = _kitti(path if path.name == "label_2" else path / "training" / "label_2")
    elif (path / "data.yaml").is_file():
        table = _yolo(path)
    else:
        raise InductionError(
            f"{path} is no labelled set that can be read: give the JSON file of a COCO set, a folder of ms2 generate, "
            "a folder with KITTI's training/label_2, or one with YOLO's data.yaml and labels"
        )
    return check(table, str(path))


def check(table: ObjectTable, source: str) -> ObjectTable:
    """Raise an error for scenes from which nothing can be learned; return the others.

    Raises:
        InductionError: If there are fewer than two scenes, or no objects.
    """
    if table.num_scenes < 2:
        raise InductionError(
            f"{source} has {table.num_scenes} scene: what all scenes have in common takes at least two, and hundreds "
            "to be certain"
        )
    if not len(table):
        raise InductionError(f"the {table.num_scenes} scenes of {source} have no objects: there is nothing to learn")
    return table


def make_table(
    classes: Sequence[str], scenes: Iterable[Sequence[LabelledObject]], parents_known: bool = False
) -> ObjectTable:
    """Build a table from the objects of each scene; boxes are kept if all objects have one."""
    scene, label, parent, boxes = list[int](), list[int](), list[int](), list[tuple[float, ...]]()
    number = complete = 0
    for number, objects in enumerate(scenes, 1):
        start = len(label)
        for one in objects:
            scene.append(number - 1)
            label.append(one.label)
            parent.append(start + one.parent if one.parent >= 0 else -1)
            boxes.append(one.box or (0.0,) * 4)
            complete += one.box is not None
    rows, labels, parents = (torch.tensor(column, dtype=torch.long) for column in (scene, label, parent))
    found = torch.tensor(boxes, dtype=torch.double).reshape(-1, 4) if complete == len(label) else None
    return ObjectTable(tuple(classes), number, rows, labels, parents, found, parents_known)


def _coco(path: Path) -> ObjectTable:
    file = read_coco(path)
    if file.faults:
        text = format_examples(f"{path} has faulty annotations of {len(file.faults)} images", [*file.faults.values()])
        raise InductionError(f"{text}\nRepair them, or take these images out.")
    ids = list(file.categories)
    number = {known: i for i, known in enumerate(ids)}

    def objects(image: object) -> list[LabelledObject]:
        about = file.images[image]
        width, height = about.get("width"), about.get("height")
        return [
            LabelledObject(
                number[one["category_id"]],
                _fractions(corners(one["bbox"]), width, height) if width and height else None,
            )
            for one in file.annotations[image]
            if not one.get("iscrowd")
        ]

    return make_table([file.categories[i] for i in ids], map(objects, file.images))


def _records(paths: Sequence[Path]) -> ObjectTable:
    classes: dict[str, int] = {}

    def objects(path: Path) -> list[LabelledObject]:
        record = read_record(path)
        with reading(path):
            of_object = {label.object: i for i, label in enumerate(record.labels)}
            found = []
            for label in record.labels:
                above = record.scene.objects[label.object].parent
                while above >= 0 and above not in of_object:
                    above = record.scene.objects[above].parent
                box = label.amodal_bbox or label.bbox
                place = None if box is None else _fractions(corners(box), record.image.width, record.image.height)
                number = classes.setdefault(label.category, len(classes))
                found.append(LabelledObject(number, place, of_object.get(above, -1)))
            return found

    scenes = [objects(path) for path in paths]
    return make_table(list(classes), scenes, any(one.parent >= 0 for scene in scenes for one in scene))


def _kitti(folder: Path) -> ObjectTable:
    classes: dict[str, int] = {}

    def objects(path: Path) -> list[LabelledObject]:
        kept = [one for one in read_labels(path) if not one.dont_care]
        image = next(
            (file for s in IMAGE_SUFFIXES if (file := folder.parent / "image_2" / f"{path.stem}{s}").is_file()), None
        )
        height, width = (375, 1242) if image is None else image_header(image)[0]
        return [
            LabelledObject(classes.setdefault(one.type.lower(), len(classes)), _fractions(one.box, width, height))
            for one in kept
        ]

    scenes = [objects(path) for path in sorted(folder.glob("*.txt"))]
    return make_table(list(classes), scenes)


def _yolo(folder: Path) -> ObjectTable:
    with reading(folder / "data.yaml"):
        names = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"]
        classes = list(names.values()) if isinstance(names, dict) else list(names)

    def objects(path: Path) -> list[LabelledObject]:
        with reading(path):
            found = []
            for line in path.read_text(encoding="utf-8").splitlines():
                label, x, y, w, h = line.split()[:5]
                if not 0 <= int(label) < len(classes):
                    raise ValueError(f"class {label} is not one of the {len(classes)} in data.yaml")
                cx, cy, wide, high = map(float, (x, y, w, h))
                box = (cx - wide / 2, cy - high / 2, cx + wide / 2, cy + high / 2)
                found.append(LabelledObject(int(label), box))
            return found

    return make_table(classes, [objects(path) for path in sorted((folder / "labels").rglob("*.txt"))])


def _fractions(box: Sequence[float], width: float, height: float) -> tuple[float, ...]:
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height
