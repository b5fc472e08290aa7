"""Interface of labelled sets: images with boxes, categories and masks, as torchvision's detectors take them.

An example is a pair of an image, uint8[3 h w], and its annotations, which detectors learn from and
`ms2.metrics.average_precision` evaluates with: ``boxes`` (float[n 4], x0, y0, x1, y1 in pixels), ``labels`` (int[n],
from 1), ``masks`` (uint8[n h w], if requested), and fields that only evaluation reads: ``ignore``, ``height``,
``occlusion``, ``truncation``, ``scale``, ``regions`` and ``region_labels``.
"""

import contextlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ms2.core.bounds import NonNegativeInt
from ms2.core.errors import OnError, UserError, format_examples, suggest
from ms2.core.settings import Configured

Annotations = dict[str, Tensor]
Example = tuple[UInt8[Tensor, "3 h w"], Annotations]
ApProtocol = Literal["plain", "kitti"]
"""How average precision is computed: of each class, or by KITTI's levels of difficulty."""
MIN_SIDE = 1e-3
"""Shortest side of a box in pixels; shorter boxes are left out, as torchvision's detectors refuse empty ones."""
READING_ERRORS = (AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""Exceptions that damaged files raise while they are read."""


class DataSetError(UserError):
    """A labelled data set is missing, damaged or incomplete."""


class Annotation(NamedTuple):
    """One annotated object, or region that evaluation leaves out, in pixels of the image as it is returned.

    Attributes:
        box: x0, y0, x1, y1; may exceed the image.
        label: Number of its category, from 1; 0 for a region of any category.
        region: Whether this is a region that evaluation leaves out, and no object to learn.
        ignore: Whether the object is learned, but left out by evaluation.
        occlusion: KITTI's occlusion level.
        truncation: Fraction of the object outside the image.
        mask: Pixels of the object, if requested.
    """

    box: tuple[float, float, float, float]
    label: int
    region: bool = False
    ignore: bool = False
    occlusion: int = 0
    truncation: float = 0.0
    mask: Bool[np.ndarray, "h w"] | None = None


class LabelledSet(Configured, Dataset[Example], ABC):
    """Map-style dataset of images and annotations.

    Attributes:
        categories: Names of the categories; the first has label 1.
        amodal: Whether boxes enclose whole objects, and not just their visible part.
        protocol: How average precision is computed on the set.
    """

    categories: tuple[str, ...]
    amodal: bool = False
    protocol: ApProtocol = "plain"

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Return an image and its annotations."""

    def counts(self) -> Int[Tensor, "n c"]:
        """Count the objects of each category in each image."""
        return torch.stack([count_labels(self[i][1]["labels"], len(self.categories)) for i in range(len(self))])


class LabelledSubset(LabelledSet):
    """Some images of a labelled set.

    Args:
        whole: The set.
        indices: Indices of the images.
    """

    def __init__(self, whole: LabelledSet, indices: Sequence[NonNegativeInt]) -> None:
        self.whole, self.indices = whole, list(indices)
        self.categories, self.amodal, self.protocol = whole.categories, whole.amodal, whole.protocol

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        """Return an image and its annotations."""
        return self.whole[self.indices[index]]


def count_labels(labels: Int[Tensor, " n"], num_categories: int) -> Int[Tensor, " c"]:
    """Count the labels 1 to c."""
    return labels.bincount(minlength=num_categories + 1)[1:]


def collate(examples: Sequence[Example]) -> tuple[list[Tensor], list[Annotations]]:
    """Collate a batch into lists, as torchvision's detectors expect: images differ in their number of objects."""
    return [image for image, _ in examples], [annotations for _, annotations in examples]


def stack_annotations(
    image: UInt8[Tensor, "3 h w"], found: Sequence[Annotation], masks: bool = False, scale: float = 1.0
) -> Annotations:
    """Stack the annotations of an image; boxes are clipped to it, and left out if nothing remains.

    Args:
        image: The image.
        found: Its annotations.
        masks: Whether to return masks, which all objects must have.
        scale: Pixels of the image per pixel of the original, in which evaluation measures heights.
    """
    height, width = image.shape[1:]
    boxes = torch.tensor([one.box for one in found], dtype=torch.float32).reshape(-1, 4)
    full_height = (boxes[:, 3] - boxes[:, 1]) / scale
    boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > MIN_SIDE).all(1)
    region = torch.tensor([one.region for one in found], dtype=torch.bool)
    labels = torch.tensor([one.label for one in found], dtype=torch.long)
    objects = kept & ~region
    stacked = {
        "boxes": boxes[objects],
        "labels": labels[objects],
        "ignore": torch.tensor([one.ignore for one in found], dtype=torch.bool)[objects],
        "height": full_height[objects],
        "occlusion": torch.tensor([one.occlusion for one in found], dtype=torch.long)[objects],
        "truncation": torch.tensor([one.truncation for one in found], dtype=torch.float32)[objects],
        "scale": torch.tensor(scale, dtype=torch.float32),
        "regions": boxes[kept & region],
        "region_labels": labels[kept & region],
    }
    if masks:
        stacked["masks"] = torch.zeros(int(objects.sum()), height, width, dtype=torch.uint8)
        for row, i in enumerate(objects.nonzero()[:, 0].tolist()):
            stacked["masks"][row] = torch.from_numpy(found[i].mask)
    return stacked


def corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Convert a box from x, y, width and height to x0, y0, x1, y1."""
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


# -- arguments and files -------------------------------------------------------------------------------


class NameIndex:
    """Indices of names, which are found without regard to case; a name of equal case comes first.

    Args:
        names: The names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: i for i, name in enumerate(names)}
        self._folded = {name.casefold(): i for i, name in reversed(list(enumerate(names)))}

    def get(self, name: str) -> int | None:
        """Return the index of a name; None if there is none."""
        return self._exact.get(name, self._folded.get(name.casefold()))

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


def choose_categories(wanted: Sequence[str] | None, available: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the wanted categories, whatever their case, as they are spelled where available; by default all.

    Raises:
        UserError: If one is unknown or named twice, or the list is empty; the message names the source.
    """
    if wanted is None:
        return tuple(available)
    known = NameIndex(available)
    found = [known.get(name) for name in wanted]
    for name, index in zip(wanted, found, strict=True):
        if index is None:
            raise UserError(f"{source} has no category {name!r}. {suggest(name, available)}")
    if not wanted or len(set(found)) < len(found):
        raise UserError(f"categories are {list(wanted)}: name one or more, each once")
    return tuple(available[index] for index in found if index is not None)


def usable_items(data: LabelledSet, on_error: OnError) -> list[int]:
    """Return the indices of a set's examples; with ``on_error`` "skip", read each once, and leave the faulty ones out.

    Raises:
        UserError: If none is left, or ``on_error`` is neither "raise" nor "skip".
    """
    if on_error not in get_args(OnError):
        raise UserError(f"on_error cannot be {on_error!r}. {suggest(str(on_error), get_args(OnError))}")
    if on_error == "raise":
        return list(range(len(data)))
    good, bad = list[int](), list[str]()
    for i in tqdm(range(len(data)), "Checking labelled images", unit="image", disable=None, leave=False):
        try:
            data[i]
            good.append(i)
        except UserError as error:
            bad.append(str(error))
    if bad:
        text = format_examples(f"{len(bad)} of {len(data)} labelled images are left out", bad)
        if not good:
            raise DataSetError(f"{text}\nNo image is left.")
        warnings.warn(text, stacklevel=3)
    return good


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file named in a data file; raise an error if it lies outside the folder.

    Raises:
        DataSetError: If it lies elsewhere, or is no path at all.
    """
    try:
        path = (folder / name).resolve()
    except ValueError as error:  # such as a null byte
        raise DataSetError(f"{folder}: {name!r} is named as an image, but is no path ({error})") from error
    if not path.is_relative_to(folder.resolve()):
        raise DataSetError(f"{name!r} is named as an image, but lies outside {folder}: do not trust this folder")
    return path


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn exceptions that damaged content raises into a `DataSetError` that names the file."""
    try:
        yield
    except UserError:  # names the file already
        raise
    except READING_ERRORS as error:
        raise DataSetError(f"{path} is damaged, or has an unexpected format: {error!r}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataSetError: If it cannot be read, or holds something else.
    """
    with reading(path):
        found = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(found, dict):
            raise DataSetError(f"{path} is damaged, or has an unexpected format: it holds no JSON object")
        return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
