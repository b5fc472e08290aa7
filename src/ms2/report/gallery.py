"""Grids of images with boxes and masks that can be shown and hidden, altogether or class by class."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image

from ms2.core.errors import UserError
from ms2.report.markup import Html, element

INKS = (
    "#ff5c5c", "#34c8ff", "#ffd23f", "#5be37d", "#c58bff", "#ff9a3d", "#ff7ad9", "#8ea2ff", "#b8e62e", "#2ee6c5",
    "#ffb3a7", "#e0c28c",
)  # fmt: skip
"""Colours of classes: light ones, which can be told from pictures of whatever is in them."""
MAX_BYTES = 40_000
"""Files up to this size go into the page as they are; larger ones become JPEG."""
LARGEST_SIDE = 800
"""Pixels along the longer side of what becomes JPEG."""
COARSE = 200
"""Images narrower than this are shown with sharp pixels, not blurred ones."""


class Label(NamedTuple):
    """An object in a picture.

    Attributes:
        category: Name of its class.
        box: x, y, width and height in pixels of the picture.
        visibility: Visible share of it, 0..1; None where it is not known.
    """

    category: str
    box: tuple[float, float, float, float]
    visibility: float | None = None


class Picture(NamedTuple):
    """An image in a gallery.

    Attributes:
        uri: The image itself, as a data URI.
        size: Width and height in pixels, in which its labels are given.
        labels: What is to be seen in it; None where nobody knows.
        name: What it is called.
        masks: Transparent images of the same size, as data URIs by category.
    """

    uri: str
    size: tuple[int, int]
    labels: Sequence[Label] | None
    name: str
    masks: Mapping[str, str] = {}  # read only


def gallery(groups: Mapping[str, Sequence[Picture]]) -> Html:
    """Pictures in groups, such as prior, learned and target, side by side, or below each other where they are wide."""
    pictures = [picture for group in groups.values() for picture in group]
    counts = Counter(label.category for picture in pictures for label in picture.labels or ())
    numbers = {category: i for i, (category, _) in enumerate(counts.most_common())}
    masked = any(picture.masks for picture in pictures)
    unknown = [who for who, group in groups.items() if group and all(picture.labels is None for picture in group)]
    switches = [_switch("boxes", "Boxes")] if counts else []
    switches += [_switch("masks", "Masks", on=False)] if masked else []
    classes = [
        element(
            "label",
            element("input", type="checkbox", name="class", value=i, checked=True),
            element("i", class_="key", style=f"background: {_ink(i)}"),
            category,
            element("small", f"{counts[category]:,}"),
        )
        for category, i in numbers.items()
    ]
    wide = any(picture.size[0] >= 2 * picture.size[1] for picture in pictures)
    columns = [
        element(
            "section",
            element("h3", element("i", class_=f"key ink-{who}"), who) if len(groups) > 1 else None,
            element("div", [_tile(picture, numbers) for picture in group], class_="tiles"),
        )
        for who, group in groups.items()
        if group
    ]
    return element(
        "div",
        element("style", _rules(len(numbers))),
        element("div", switches, class_="switches") if switches else None,
        element("div", classes, class_="switches classes", role="group", aria_label="classes") if classes else None,
        element("div", columns, class_=f"groups of-{len(columns)}{' wide' if wide else ''}"),
        element("p", f"Boxes are not known of: {', '.join(unknown)}.", class_="note") if unknown and counts else None,
        element("dialog", element("form", element("button", "close"), method="dialog"), element("div")),
        class_="gallery",
    )


def label_of(record: Mapping[str, Any]) -> Label:
    """A label as it stands in JSON.

    Raises:
        KeyError, TypeError, ValueError: If it is none.
    """
    x, y, w, h = (float(number) for number in record["bbox"])
    seen = record.get("visibility")
    return Label(str(record["category"]), (x, y, w, h), None if seen is None else float(seen))


def embedded(path: Path, most_bytes: int = MAX_BYTES) -> tuple[str, tuple[int, int]]:
    """An image file as a data URI, and its width and height in pixels.

    Raises:
        UserError: If it can't be read as an image.
    """
    try:
        with Image.open(path) as image:
            size, kind = image.size, str(image.format)
            if path.stat().st_size <= most_bytes and kind in ("PNG", "JPEG", "WEBP"):
                return _uri(path.read_bytes(), kind), size
            smaller = image.convert("RGB")
            smaller.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
            return _uri(_file(smaller, "JPEG", quality=88), "JPEG"), size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: can't be read as an image ({error})") from error


def mask_image(mask: Bool[np.ndarray, "h w"], number: int) -> str:
    """A mask in the colour of the class with this number in a gallery's legend, as a data URI."""
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, *bytes.fromhex(_ink(number)[1:])])
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.NEAREST)
    return _uri(_file(image, "PNG", transparency=0, bits=1), "PNG")


def _tile(picture: Picture, numbers: Mapping[str, int]) -> Html:
    width, height = picture.size
    masks = [
        element("image", href=uri, width=width, height=height, preserveAspectRatio="none", data_class=numbers.get(name))
        for name, uri in picture.masks.items()
    ]
    # large boxes first, so that small ones lie above them and can be pointed at
    labels = sorted(picture.labels or (), key=lambda label: -label.box[2] * label.box[3])
    overlay = element(
        "svg",
        element("g", masks, class_="masks"),
        element("g", [_box(label, numbers[label.category], height) for label in labels], class_="boxes"),
        viewBox=f"0 0 {width} {height}",
        aria_hidden="true",
    )
    counts = Counter(label.category for label in picture.labels or ())
    said = ", ".join(f"{number} {category}" for category, number in counts.most_common())
    return element(
        "button",
        element("img", src=picture.uri, alt="", width=width, height=height),
        overlay if labels or masks else None,
        type="button",
        class_="tile coarse" if width < COARSE else "tile",
        aria_label=f"{picture.name}: {said}" if said else picture.name,
    )


def _box(label: Label, number: int, height: int) -> Html:
    x, y, w, h = label.box
    rise = "-.3em" if y > height / 16 else "1em"  # at the top of the image there is no room but in the box
    seen = "" if label.visibility is None else f", {label.visibility:.0%} visible".replace("%", " %")
    return element(
        "g",
        element("rect", x=x, y=y, width=w, height=h),
        element("text", label.category, x=x, y=y, dy=rise),
        class_="box",
        data_class=number,
        data_tip=f"{label.category}{seen}\n{w:.0f} × {h:.0f} px",
        style=f"--ink: {_ink(number)}",
    )


def _switch(name: str, text: str, on: bool = True) -> Html:
    return element("label", element("input", type="checkbox", name=name, checked=on), text)


def _rules(classes: int) -> Html:
    """What hides: the state of a page's checkboxes is all there is, with or without scripts."""
    hidden = [f'.gallery:has([name="{name}"]:not(:checked)) .{name}' for name in ("boxes", "masks")]
    hidden += [f'.gallery:has([value="{i}"]:not(:checked)) [data-class="{i}"]' for i in range(classes)]
    return Html(",".join(hidden) + "{display:none}")


def _ink(number: int) -> str:
    return INKS[number % len(INKS)]


def _file(image: Image.Image, kind: str, **options: int) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
