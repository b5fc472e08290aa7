"""Images and labels in an external program's answers."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.images import Channels, read_image, unreadable_reason


class AnswerError(UserError):
    """An external program's answer is no image or labels of the scene that it was given."""


class ObjectArrays(NamedTuple):
    """Labels of the n objects of one image, as in `ms2.render.base.Rendering`."""

    boxes: Float[Tensor, "n 4"]
    corners: Float[Tensor, "n 4 2"]
    visible_boxes: Float[Tensor, "n 4"]
    visibility: Float[Tensor, " n"]


def image_of(
    answer: Mapping[str, Any], file: Path, channels: Channels, size: tuple[int, int]
) -> UInt8[Tensor, "c h w"]:
    """Read the image of an answer: from the file, or as base64 from the key ``image``.

    Raises:
        AnswerError: If there is none, or it has another size.
    """
    try:
        image = read_image(file, channels, content=_content(answer, "image", file), exif="ignore")
    except UserError as error:
        raise AnswerError(f"its image can't be read: {error}") from error
    _check_size("image", (image.shape[1], image.shape[2]), size)
    return image


def instances_of(answer: Mapping[str, Any], file: Path, size: tuple[int, int], number: int) -> Int[Tensor, "h w"]:
    """Read the instances of an answer: index of the object at each pixel, -1 for none.

    Files have 0 for the background, 1 for the first object of the scene, and so on, in 8 or 16 bits.

    Raises:
        AnswerError: If there are none, of another size, or of other objects than the scene's.
    """
    try:
        with Image.open(io.BytesIO(_content(answer, "instances", file) or file.read_bytes())) as image:
            found = np.asarray(image).astype(np.int64)
    except Exception as error:  # given broken bytes, decoders raise anything
        raise AnswerError(f"its instances can't be read: {file}: {unreadable_reason(error)}") from error
    if found.ndim != 2:
        raise AnswerError(f"its instances have to be an image in grey, of 8 or 16 bits, not {found.shape[2]} channels")
    _check_size("instances", found.shape, size)
    if found.size and not 0 <= found.min() <= found.max() <= number:
        raise AnswerError(
            f"its instances go from {found.min()} to {found.max()}, but the scene has {number} objects: 0 is the "
            f"background, 1 the first object, {number} the last"
        )
    return torch.from_numpy(found - 1)


def labels_of(answer: Mapping[str, Any], instances: Int[Tensor, "h w"], number: int) -> ObjectArrays:
    """Complete the labels of an answer's objects by what their pixels show.

    Where the answer does not say it, an object is taken to be unoccluded: its box is that of its visible pixels, its
    ``pixels`` are their number, and its ``corners`` are those of its box.

    Args:
        answer: The answer; its list ``objects`` may say of each object ``box``, ``corners`` and ``pixels``.
        instances: Index of the object at each pixel.
        number: Number of objects in the scene.

    Raises:
        AnswerError: If the labels of an object have another form.
    """
    from scipy import ndimage  # takes seconds to import

    height, width = instances.shape
    told = answer.get("objects", [{}] * number)
    if not isinstance(told, list) or len(told) != number or not all(isinstance(one, Mapping) for one in told):
        raise AnswerError(f"objects has to be a list of {number} objects, one for each of the scene, not {told!r:.200}")
    shown = instances.numpy() + 1
    area = np.bincount(shown.reshape(-1), minlength=number + 1)[1:]
    slices = ndimage.find_objects(shown, max_label=number)
    visible = [[0, 0, 0, 0] if s is None else [s[1].start, s[0].start, s[1].stop, s[0].stop] for s in slices]
    boxes = [_numbers(one, "box", (4,), seen) for one, seen in zip(told, visible, strict=True)]
    corners = [
        _numbers(one, "corners", (4, 2), [[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        for one, (x0, y0, x1, y1) in zip(told, boxes, strict=True)
    ]
    pixels = np.array([_numbers(one, "pixels", (), int(seen)) for one, seen in zip(told, area, strict=True)])
    edges = torch.tensor([width, height, width, height], dtype=torch.float32)
    return ObjectArrays(
        torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4).clamp(min=0).minimum(edges),
        torch.tensor(np.array(corners), dtype=torch.float32).reshape(-1, 4, 2),
        torch.tensor(visible, dtype=torch.float32).reshape(-1, 4),
        torch.from_numpy(area / np.maximum(np.maximum(pixels, area), 1)).float(),
    )


def _content(answer: Mapping[str, Any], key: str, file: Path) -> bytes | None:
    """Return a file's content that an answer holds; None if it is in the file."""
    if key not in answer:
        return None
    try:
        return base64.b64decode(answer[key], validate=True)
    except (TypeError, ValueError) as error:
        raise AnswerError(f"{key} of its answer is no base64: leave it out, and write {file}") from error


def _check_size(what: str, found: Sequence[int], size: tuple[int, int]) -> None:
    if tuple(found) != size:
        raise AnswerError(f"its {what} of {found[1]} x {found[0]} pixels should have {size[1]} x {size[0]}")


def _numbers(one: Mapping[str, Any], key: str, shape: tuple[int, ...], default: Any) -> Any:
    """Return finite numbers of a shape that an answer tells of an object."""
    value = one.get(key, default)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        form = "a number" if not shape else " x ".join(map(str, shape)) + " numbers"
        raise AnswerError(f"{key} of an object has to be {form}, not {value!r:.80}")
    return array
