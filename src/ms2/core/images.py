"""A folder of images of any origin as a dataset of 8-bit tensors."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ms2.core.errors import UserError, suggest

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

Channels = Literal[1, 3]
Fit = Literal["stretch", "crop", "pad"]


class ImageError(UserError):
    """An image, or a folder of them, that cannot be used.

    Args:
        path: The file or folder.
        reason: What is wrong with it; empty where `path` already holds the whole message.
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
) -> UInt8[Tensor, "c h w"]:
    """Read one image upright, its transparency over black, and its first frame if it has several.

    The content decides the format, not the extension. 16-bit grey is scaled to 8 bit; floats are read with 1 as white.

    Args:
        path: The file.
        channels: 3 for red, green, blue; 1 for grey.
        size: Height and width to bring it to, in pixels; None keeps its own.
        fit: How to bring it there, as in `ImageFolder`.
        content: Bytes to decode instead of a file's; the path then only names them in errors.

    Returns:
        The pixels, (channels, height, width), 0 to 255.

    Raises:
        ImageError: The file cannot be read; says why.
    """
    try:
        decoded = _open(Path(path)) if content is None else _decode(io.BytesIO(content))
        image = _fit(_flatten(decoded, channels), size, fit)
    except Exception as error:  # given broken bytes, decoders raise anything: OSError, SyntaxError, struct.error, ...
        raise ImageError(path, _reason(error)) from error
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _open(path: Path) -> Image.Image:
    if not path.is_file():  # also keeps Pillow from waiting forever on a named pipe
        raise OSError("not a file, or a link to a missing one")
    if path.stat().st_size == 0:
        raise OSError("the file is empty (0 bytes)")
    with path.open("rb") as file:
        return _decode(file)


def _decode(file: Any) -> Image.Image:
    with Image.open(file) as image:
        # Pillow itself only warns up to twice its limit, and warnings cannot be caught safely in threads.
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        return ImageOps.exif_transpose(image)  # which decodes it, too


def _flatten(image: Image.Image, channels: Channels) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _deep_to_grey(image)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def _deep_to_grey(image: Image.Image) -> Image.Image:
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
    # Not ImageOps.pad: it gives a black picture where a very long image would be less than a pixel thin.
    scale = min(height / image.height, width / image.width)
    inside = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    frame = Image.new(image.mode, (width, height))
    corner = (width - inside[0]) // 2, (height - inside[1]) // 2
    frame.paste(image.resize(inside, Image.Resampling.BICUBIC), corner)
    return frame


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS} pixels"
        return f"over Pillow's limit of {limit}, so it could be a decompression bomb; if you trust it, save it smaller"
    return str(error) or type(error).__name__


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise UserError(f"{name} cannot be {value!r}. {suggest(str(value), map(str, choices))}")


def _check_size(size: object) -> None:
    if size is None:
        return
    pair = isinstance(size, Sequence) and len(size) == 2
    if not pair or not all(isinstance(side, int) and side > 0 for side in size):  # type: ignore[attr-defined]
        raise UserError(
            f"size is {size!r}: give height and width in pixels, such as (128, 416), or null for each image's own."
        )


def image_grid(images: Float[Tensor, "b c h w"], columns: int = 4) -> UInt8[np.ndarray, "height width 3"]:
    """Images as one picture, with grey lines between them."""
    from torchvision.utils import make_grid  # takes seconds to import

    grid = make_grid(images.detach().cpu().float(), columns, padding=max(1, images.shape[-1] // 40), pad_value=0.5)
    return to_pixels(grid)


def to_pixels(image: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "height width *channels"]:
    """One image with pixels in [0, 1] as an array for Pillow."""
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def encode(pixels: UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."], kind: Literal["png", "jpeg"]) -> bytes:
    """An image file: PNG without loss, or JPEG of quality 95."""
    if kind == "png" and pixels.dtype == np.uint8:
        return _quick_png(pixels)
    out = io.BytesIO()
    if kind == "png":
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    else:
        Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def _quick_png(pixels: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    """A PNG whose bytes are all differences to the pixel on the left.

    Pillow tries five ways for every row, which takes twice as long and saves a tenth of the room: a tenth of the time
    in which a street is drawn.
    """
    height, width = pixels.shape[:2]
    channels = pixels[0, 0].size
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 1  # the filter's number
    rows[:, 1:] = pixels.reshape(height, -1)
    rows[:, 1 + channels :] -= pixels.reshape(height, -1)[:, :-channels]
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    data = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
