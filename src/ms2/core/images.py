"""Reading, resizing, encoding and tiling of images."""

import io
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ms2.core.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
UNREAD_IMAGE_SUFFIXES = (
    ".apng", ".arw", ".avif", ".cr2", ".cr3", ".dds", ".dng", ".exr", ".hdr", ".heic", ".heif", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jxl", ".nef", ".orf", ".pbm", ".pnm", ".psd", ".raf", ".rw2", ".svg", ".tga",
)  # fmt: skip
"""Suffixes of images that are not read: Pillow lacks them, depends on how it was built, or reads a preview alone."""

ORIENTATION = 0x0112
"""EXIF's tag of an image's orientation."""
TURNED = range(2, 9)
"""Orientations other than upright."""

Channels = Literal[1, 3]
Exif = Literal["apply", "ignore", "refuse"]
"""How to handle images that their EXIF data turn or mirror."""
Fit = Literal["stretch", "crop", "pad"]


class ImageError(UserError):
    """An image, or an image folder, cannot be read.

    Args:
        path: The file or folder.
        reason: Why it cannot be read; empty if `path` is the whole message.
    """

    # `reason` may be left out because torch's DataLoader rebuilds a worker's error from its message alone, and would
    # fall back to RuntimeError otherwise.
    def __init__(self, path: str | Path, reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else str(path))
        self.path, self.reason = path, reason


def read_image(
    path: str | Path,
    channels: Channels = 3,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    content: bytes | None = None,
    exif: Exif = "apply",
) -> UInt8[Tensor, "c h w"]:
    """Read an image: apply its EXIF rotation, composite transparency over black, and take the first frame.

    The format is detected from the content, not the suffix. 16-bit grey is scaled to 8 bits; in floats 1 is white.

    Args:
        path: The file.
        channels: 3 for red, green, blue; 1 for grey.
        size: Height and width in pixels to resize to; None keeps the image's own.
        fit: How to handle another aspect ratio: "crop", "pad" (black) or "stretch".
        content: Bytes to decode instead of the file's; the path is then used in error messages alone.
        exif: Whether the EXIF rotation is applied, ignored or refused; labels may refer to the pixels as stored.

    Returns:
        The pixels, (channels, height, width), 0 to 255.

    Raises:
        ImageError: If the file cannot be read; the message says why.
    """
    try:
        decoded = _open(Path(path), exif) if content is None else _decode(io.BytesIO(content), exif)
        image = _fit(_flatten(decoded, channels), size, fit)
    except Exception as error:  # given broken bytes, decoders raise anything: OSError, SyntaxError, struct.error, ...
        raise ImageError(path, unreadable_reason(error)) from error
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def image_header(path: Path) -> tuple[tuple[int, int], int]:
    """Read height and width of an image as stored, and its orientation in EXIF.

    That is 1 for upright, 2 to 4 for mirrored or upside down, and 5 to 8 for turned by a quarter.

    Raises:
        ImageError: If it cannot be read.
    """
    try:
        if not path.is_file():
            raise OSError
        with Image.open(path) as image:
            # a PNG may have it behind its pixels, which are not decoded here
            known = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(ORIENTATION, 1) if known else 1
            return (image.height, image.width), orientation if orientation in TURNED else 1
    except Exception:
        height, width = read_image(path, exif="ignore").shape[1:]  # raises an error that says why
        return (height, width), 1


def _open(path: Path, exif: Exif) -> Image.Image:
    if not path.is_file():  # also keeps Pillow from waiting forever on a named pipe
        raise OSError("not a file, or a link to a missing one")
    if path.stat().st_size == 0:
        raise OSError("the file is empty (0 bytes)")
    with path.open("rb") as file:
        return _decode(file, exif)


def _decode(file: Any, exif: Exif) -> Image.Image:
    with Image.open(file) as image:
        # Pillow itself only warns up to twice its limit, and warnings cannot be caught safely in threads.
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        if exif == "apply":
            return ImageOps.exif_transpose(image)  # which decodes it, too
        decoded = image.copy()
        if exif == "refuse" and image.getexif().get(ORIENTATION, 1) in TURNED:
            raise ValueError(
                "its EXIF data turn it, so that it is not known which way its labels refer to; save it upright, "
                "without EXIF data"
            )
        return decoded


def _flatten(image: Image.Image, channels: Channels) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = deep_to_grey(image)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def deep_to_grey(image: Image.Image) -> Image.Image:
    """Convert an image in 16 bits or in floats to 8-bit grey.

    Raises:
        ValueError: If values are out of range.
    """
    # Pillow's own conversion clips at 255 instead of scaling. It opens 16-bit files in mode I too, so that mode is
    # taken to be 16-bit. White is fixed, not the image's maximum, so that images stay comparable.
    white = 1 if image.mode == "F" else 65535
    values = np.asarray(image, dtype=np.float32)
    levels = np.rint(values * (255 / white))
    if not (levels.min() >= 0 and levels.max() <= 255):  # so written that NaN is refused too
        spread = f"{values.min():g} to {values.max():g}"
        raise ValueError(f"its values go from {spread}, outside 0 (black) to {white} (white); save it as 8 or 16 bit")
    return Image.fromarray(levels.astype(np.uint8))


def _fit(image: Image.Image, size: tuple[int, int] | None, fit: Fit) -> Image.Image:
    if size is None:
        return image
    height, width = size
    if fit == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    # Not ImageOps.pad: it gives a black image where a very long image would be less than a pixel thin.
    scale = min(height / image.height, width / image.width)
    inside = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    frame = Image.new(image.mode, (width, height))
    corner = (width - inside[0]) // 2, (height - inside[1]) // 2
    frame.paste(image.resize(inside, Image.Resampling.BICUBIC), corner)
    return frame


def unreadable_reason(error: Exception) -> str:
    """Return a sentence part that says why a file cannot be read, from the error that reading it raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS} pixels"
        return f"over Pillow's limit of {limit}, so it could be a decompression bomb; if you trust it, save it smaller"
    return str(error) or type(error).__name__


def unread_reason(name: str | Path) -> str:
    """Return a sentence part that says why an image of a kind that is not read is no use, and what to do."""
    return f"{Path(name).suffix.lower()[1:].upper()} files are not read; convert it to PNG or JPEG"


def image_grid(images: Float[Tensor, "b c h w"], columns: int = 4) -> UInt8[np.ndarray, "height width 3"]:
    """Tile images to one, with grey lines between them.

    Example:
        >>> image_grid(torch.rand(8, 3, 16, 16)).shape
        (35, 69, 3)
    """
    from torchvision.utils import make_grid  # takes seconds to import

    grid = make_grid(images.detach().cpu().float(), columns, padding=max(1, images.shape[-1] // 40), pad_value=0.5)
    return to_pixels(grid)


def to_pixels(image: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "height width *channels"]:
    """Convert an image with pixels in [0, 1] to an array for Pillow."""
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def encode(pixels: UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."], kind: Literal["png", "jpeg"]) -> bytes:
    """Encode an image file: lossless PNG, or JPEG of quality 95.

    PNGs are compressed by run lengths at level 1, which for rendered streets is faster than zlib's default strategy at
    any level, and at level 1 makes smaller files.
    """
    out = io.BytesIO()
    if kind == "png":
        Image.fromarray(pixels).save(out, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    else:
        Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()
