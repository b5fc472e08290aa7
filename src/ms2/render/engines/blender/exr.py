"""Reading of OpenEXR files as Blender writes them without compression."""

import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MAGIC = 20000630
"""The first four bytes of an OpenEXR file."""
DTYPES = {0: "<u4", 1: "<f2", 2: "<f4"}
"""NumPy's types of OpenEXR's types of pixels."""


@dataclass(frozen=True)
class EXRImage:
    """Channels and attributes of an OpenEXR file.

    Attributes:
        channels: Values by the channel's name, such as ``ViewLayer.Combined.R``.
        attributes: Text attributes of the header by name.
    """

    channels: dict[str, Float[np.ndarray, "h w"]]
    attributes: dict[str, str]


def read_exr(content: bytes) -> EXRImage:
    """Read an OpenEXR file of one part in scan lines, without compression.

    The layout is that of "OpenEXR File Layout" (openexr.com): header, table of offsets, and for each row its number,
    its size in bytes and the values of each channel, by the channels' names.

    Raises:
        ValueError: If it is no such file, or not complete.
    """
    try:
        return _read(content)
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"it is no complete OpenEXR file ({error!r})") from error


def _read(content: bytes) -> EXRImage:
    magic, version = struct.unpack_from("<ii", content)
    if magic != MAGIC or version & 0x1A00:  # tiles, deep data, several parts
        raise ValueError("it is no OpenEXR file of one part in scan lines")
    attributes, position = _header(content, 8)
    if attributes["compression"] != b"\0":
        raise ValueError("the OpenEXR file is compressed")
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    channels = _channels(attributes)
    row = np.dtype([("y", "<i4"), ("size", "<i4"), *((name, kind, (width,)) for name, kind in channels)])
    start = position + 8 * height
    if min(width, height) < 1 or len(content) < start + height * row.itemsize:
        raise ValueError("the OpenEXR file is not complete")
    rows = np.frombuffer(content, row, height, start)
    rows = rows[np.argsort(rows["y"])]  # rows may be stored in decreasing order
    texts = {name: value.decode("utf-8", "replace") for name, value in attributes.items()}
    return EXRImage({name: rows[name].astype(np.float32) for name, _ in channels}, texts)


def _header(content: bytes, position: int) -> tuple[dict[str, bytes], int]:
    """Read the attributes of a header; return the position after it too."""
    attributes: dict[str, bytes] = {}
    while content[position]:
        name, position = _text(content, position)
        _, position = _text(content, position)
        (size,) = struct.unpack_from("<i", content, position)
        attributes[name] = content[position + 4 : position + 4 + size]
        position += 4 + size
    return attributes, position + 1


def _channels(attributes: dict[str, bytes]) -> list[tuple[str, str]]:
    """List names and types of the channels."""
    found, table, position = [], attributes["channels"], 0
    while table[position]:
        name, position = _text(table, position)
        kind, _, across, along = struct.unpack_from("<iIii", table, position)
        if (across, along) != (1, 1):
            raise ValueError(f"channel {name} of the OpenEXR file is subsampled")
        found.append((name, DTYPES[kind]))
        position += 16
    return found


def _text(content: bytes, position: int) -> tuple[str, int]:
    end = content.index(b"\0", position)
    return content[position:end].decode("utf-8", "replace"), end + 1
