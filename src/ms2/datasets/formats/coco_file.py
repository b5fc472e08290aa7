"""COCO's annotation file: reading, with a check of every image and annotation."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from ms2.datasets.labelled_set import DataSetError, read_json_object, reading


class CocoFile(NamedTuple):
    """Content of an annotation file.

    Attributes:
        categories: Name of each category by its id.
        images: Description of each image by its id.
        annotations: Annotations of each image by its id.
        faults: What is wrong with an image or its annotations, by its id.
    """

    categories: dict[Any, str]
    images: dict[Any, dict[str, Any]]
    annotations: dict[Any, list[dict[str, Any]]]
    faults: dict[Any, str]


def read_coco_files(path: Path) -> CocoFile:
    """Read an annotation file, or all files that match a pattern, as one.

    Args:
        path: The file, or a pattern such as ``annotations/instances_*.json``.

    Raises:
        DataSetError: If there is none, one is damaged, or two have other categories or the same images.
    """
    paths = sorted(path.parent.glob(path.name)) if "*" in path.name and not path.exists() else [path]
    if not paths or not paths[0].is_file():
        raise DataSetError(f"there is no file {path.absolute()}: give the annotations of a COCO set")
    whole = read_coco(paths[0])
    for other in paths[1:]:
        part = read_coco(other)
        if part.categories != whole.categories:
            raise DataSetError(f"{other} has other categories than {paths[0]}: read them as two sets")
        if twice := whole.images.keys() & part.images.keys():
            raise DataSetError(f"{other} has image {min(twice, key=str)!r}, which is in another file of {path} too")
        whole.images.update(part.images)
        whole.annotations.update(part.annotations)
        whole.faults.update(part.faults)
    return whole


def read_coco(path: Path) -> CocoFile:
    """Read an annotation file.

    Raises:
        DataSetError: If it is damaged, or holds no images.
    """
    with reading(path):
        content = read_json_object(path)
        categories: dict[Any, str] = {}
        for one in content["categories"]:
            if one["id"] in categories or not isinstance(one["name"], str):
                raise ValueError(f"category {one['id']!r} is there twice, or has no name")
            categories[one["id"]] = one["name"]
        images: dict[Any, dict[str, Any]] = {}
        faults: dict[Any, str] = {}
        for one in content["images"]:
            if one["id"] in images or not isinstance(one["id"], int | str):
                raise ValueError(f"image {one['id']!r} is there twice, or its id is neither a number nor a text")
            images[one["id"]] = one
            if problem := _image_problem(one):
                faults[one["id"]] = f"image {one['id']!r}: {problem}"
        if not images:
            raise DataSetError(f"{path} holds no images")
        if "annotations" not in content:
            raise DataSetError(f"{path} has no annotations: give the file of a labelled part of the set")
        annotations: dict[Any, list[dict[str, Any]]] = {i: [] for i in images}
        ids: set[Any] = set()
        for number, one in enumerate(content["annotations"]):
            name, image, problem = _annotation_problem(one, number, categories, images, ids)
            if problem:
                faults.setdefault(image, f"annotation {name}: {problem}")
            else:
                annotations[image].append(one)
        return CocoFile(categories, images, annotations, faults)


def _image_problem(image: dict[str, Any]) -> str:
    """Describe what is wrong with the description of an image; empty if nothing is."""
    if not isinstance(image.get("file_name"), str):
        return "it has no file_name"
    sides = [image[name] for name in ("width", "height") if name in image]
    if not all(type(side) in (int, float) and side > 0 and side % 1 == 0 for side in sides):
        return f"width and height are {sides}, which are no numbers of pixels"
    return ""


def _annotation_problem(
    annotation: Any, number: int, categories: dict[Any, str], images: dict[Any, Any], ids: set[Any]
) -> tuple[Any, Any, str]:
    """Return an annotation's name and image, and what is wrong with it, which is empty if nothing is.

    Args:
        annotation: The annotation.
        number: Its number in the file, from 0, by which it is called if it has no id.
        categories: The file's categories by id.
        images: The file's images by id.
        ids: Ids of the annotations before it, to which its own is added.
    """
    name = f"number {number}"
    if not isinstance(annotation, dict):
        return name, None, f"it is {str(annotation)[:80]}, no object of JSON"
    known, image, category = annotation.get("id"), annotation.get("image_id"), annotation.get("category_id")
    name = name if known is None else known
    if not isinstance(image, int | str) or image not in images:
        return name, None, f"there is no image {image!r}"
    if not isinstance(category, int | str) or category not in categories:
        return name, image, f"there is no category {category!r}"
    if not isinstance(known, int | str | None) or known in ids:
        return name, image, "its id is there twice, or is neither a number nor a text"
    if known is not None:
        ids.add(known)
    return name, image, _box_problem(annotation.get("bbox"))


def _box_problem(box: Any) -> str:
    """Describe what is wrong with a box; empty if nothing is."""
    if not (isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)):
        return f"its bbox is {str(box)[:80]}, where x, y, width and height are four numbers"
    if not all(math.isfinite(v) and abs(v) < 1e6 for v in box) or box[2] < 0 or box[3] < 0:
        return f"its bbox is {box}: x, y, width and height have to be finite, and no side negative"
    return ""
