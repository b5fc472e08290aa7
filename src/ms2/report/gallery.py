"""Image grids with boxes and masks that can be toggled altogether or by class."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image

from ms2.core.errors import UserError
from ms2.core.files import RUN_AGAIN
from ms2.metrics.results import ROW_TITLES
from ms2.report.charts import ROW_COLOURS

CLASS_COLOURS = (
    "#ff5c5c", "#34c8ff", "#ffd23f", "#5be37d", "#c58bff", "#ff9a3d", "#ff7ad9", "#8ea2ff", "#b8e62e", "#2ee6c5",
    "#ffb3a7", "#e0c28c",
)  # fmt: skip
"""Colours of classes: light ones, which stand out from most images."""
PAGE_IMAGE_BYTES = 1_000_000
"""Total size of a page's image files; base64 adds a third, and a page should stay below 3 MB with the chart library."""
MAX_IMAGE_BYTES = 40_000
"""Image files up to this size go into the page as they are; larger ones become JPEG."""
JPEG_SIZES = (800, 640, 480, 320, 240, 160)
"""Lengths in pixels of a JPEG's longer side, of which the first is taken that makes a file small enough."""
JPEG_QUALITY = 85
MAX_PIXELATED_WIDTH = 200
"""Images narrower than this are enlarged without interpolation."""


class GalleryLabel(NamedTuple):
    """One annotated object.

    Attributes:
        category: Name of its class.
        box: x, y, width and height in pixels of the image.
        visibility: Visible fraction, 0..1; None if unknown.
    """

    category: str
    box: tuple[float, float, float, float]
    visibility: float | None = None


class GalleryImage(NamedTuple):
    """One image with annotations.

    Attributes:
        uri: The image as a data URI.
        size: Width and height in pixels, the unit of its labels.
        labels: Its objects; None if unknown.
        name: Name of the image.
        masks: Binary masks of the image's size by category.
    """

    uri: str
    size: tuple[int, int]
    labels: Sequence[GalleryLabel] | None
    name: str
    masks: Mapping[str, Bool[np.ndarray, "h w"]] = {}  # read only


@dataclass(frozen=True)
class Category:
    """A class in a gallery's legend.

    Attributes:
        name: Its name.
        colour: Its colour.
        count: Number of its boxes, as text.
    """

    name: str
    colour: str
    count: str


@dataclass(frozen=True)
class Box:
    """A drawn box; numbers are text in the image's pixels.

    Attributes:
        index: Index of the class in the legend.
        category: Name of the class.
        colour: Its colour.
        x: Left edge.
        y: Upper edge.
        width: Width.
        height: Height.
        text_shift: Vertical shift of the class's name: above the box, or in it at the top of the image.
        tip: Text of the tooltip.
    """

    index: int
    category: str
    colour: str
    x: str
    y: str
    width: str
    height: str
    text_shift: str
    tip: str


@dataclass(frozen=True)
class Mask:
    """A drawn mask.

    Attributes:
        index: Index of the class in the legend.
        uri: Transparent image as a data URI.
    """

    index: int
    uri: str


class Tile(NamedTuple):
    """A drawn image.

    Attributes:
        uri: The image as a data URI.
        width: Its width in pixels.
        height: Its height in pixels.
        coarse: Whether it is enlarged without interpolation.
        description: Its name and the number of objects by class.
        boxes: Its boxes, large ones first, so that small ones lie above them and can be pointed at.
        masks: Its masks.
    """

    uri: str
    width: int
    height: int
    coarse: bool
    description: str
    boxes: list[Box]
    masks: list[Mask]


class Group(NamedTuple):
    """Images of one source, such as the prior.

    Attributes:
        name: Name of the group.
        colour: Name of its CSS variable.
        images: Its images.
    """

    name: str
    colour: str
    images: list[Tile]


@dataclass(frozen=True)
class Gallery:
    """Groups of annotated images, such as prior, learned and target.

    Attributes:
        groups: The groups that have images.
        categories: Classes of all boxes, the most frequent first.
        has_masks: Whether masks can be shown.
        wide: Whether images are so wide that groups stand below each other.
        unlabelled: Names of groups whose objects are unknown; empty if none is labelled.
        note: A line above the gallery.
    """

    groups: list[Group]
    categories: list[Category]
    has_masks: bool
    wide: bool
    unlabelled: str
    note: str


def build_gallery(groups: Mapping[str, Sequence[GalleryImage]], note: str = "") -> Gallery | None:
    """Build a gallery of groups of images; None if there are no images."""
    images = [image for group in groups.values() for image in group]
    if not images:
        return None
    counts = Counter(label.category for image in images for label in image.labels or ())
    indices = {category: i for i, (category, _) in enumerate(counts.most_common())}
    shown = {name: group for name, group in groups.items() if group}
    titles = {name: ROW_TITLES.get(name, name) for name in shown}
    unlabelled = [titles[name] for name, group in shown.items() if all(image.labels is None for image in group)]
    return Gallery(
        groups=[
            Group(titles[name], ROW_COLOURS.get(name, "soft"), [_tile(one, indices) for one in group])
            for name, group in shown.items()
        ],
        categories=[Category(name, _colour(i), f"{counts[name]:,}") for name, i in indices.items()],
        has_masks=any(image.masks for image in images),
        wide=any(image.size[0] >= 2 * image.size[1] for image in images),
        unlabelled=", ".join(unlabelled) if counts else "",
        note=note,
    )


def parse_label(record: Mapping[str, Any]) -> GalleryLabel:
    """Parse a label from JSON.

    Raises:
        KeyError, TypeError, ValueError: If it isn't one.
    """
    x, y, w, h = (float(number) for number in record["bbox"])
    visibility = record.get("visibility")
    return GalleryLabel(str(record["category"]), (x, y, w, h), None if visibility is None else float(visibility))


def data_uri(path: Path, max_bytes: int = MAX_IMAGE_BYTES) -> tuple[str, tuple[int, int]]:
    """Encode an image file as a data URI; return it and the image's width and height in pixels.

    Args:
        path: The file.
        max_bytes: Larger files are scaled down to a JPEG of at most this size, as far as `JPEG_SIZES` allow.

    Raises:
        UserError: If it can't be read as an image.
    """
    try:
        with Image.open(path) as image:
            size, kind = image.size, str(image.format)
            if path.stat().st_size <= max_bytes and kind in ("PNG", "JPEG", "WEBP"):
                return _uri(path.read_bytes(), kind), size
            return _uri(_small_jpeg(image.convert("RGB"), max_bytes), "JPEG"), size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: can't be read as an image ({error}); {RUN_AGAIN}") from error


def bytes_per_image(num_images: int) -> int:
    """Return the size that each of a page's image files may have."""
    return min(MAX_IMAGE_BYTES, PAGE_IMAGE_BYTES // max(1, num_images))


def _tile(image: GalleryImage, indices: Mapping[str, int]) -> Tile:
    width, height = image.size
    labels = sorted(image.labels or (), key=lambda label: -label.box[2] * label.box[3])
    counts = Counter(label.category for label in image.labels or ())
    words = ", ".join(f"{number} {category}" for category, number in counts.most_common())
    return Tile(
        image.uri,
        width,
        height,
        width < MAX_PIXELATED_WIDTH,
        f"{image.name}: {words}" if words else image.name,
        [_box(label, indices[label.category], height) for label in labels],
        [Mask(indices[name], _mask_uri(mask, indices[name])) for name, mask in image.masks.items()],
    )


def _box(label: GalleryLabel, index: int, image_height: int) -> Box:
    x, y, w, h = (f"{number:.6g}" for number in label.box)
    visible = "" if label.visibility is None else f", {label.visibility:.0%} visible".replace("%", " %")
    return Box(
        index,
        label.category,
        _colour(index),
        x,
        y,
        w,
        h,
        text_shift="-.3em" if label.box[1] > image_height / 16 else "1em",
        tip=f"{label.category}{visible}\n{label.box[2]:.0f} × {label.box[3]:.0f} px",
    )


def _colour(index: int) -> str:
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def _mask_uri(mask: Bool[np.ndarray, "h w"], index: int) -> str:
    """Render a mask in its class's colour as a data URI."""
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *bytes.fromhex(_colour(index)[1:])])
    image.thumbnail((JPEG_SIZES[0], JPEG_SIZES[0]), Image.Resampling.NEAREST)
    return _uri(_encode(image, "PNG", transparency=0, bits=1), "PNG")


def _small_jpeg(image: Image.Image, max_bytes: int) -> bytes:
    for side in JPEG_SIZES:
        image.thumbnail((side, side))
        content = _encode(image, "JPEG", quality=JPEG_QUALITY)
        if len(content) <= max_bytes:
            break
    return content


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
