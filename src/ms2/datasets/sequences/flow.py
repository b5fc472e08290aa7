"""Optical flow in KITTI's encoding: 16-bit PNG."""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt16

from ms2.datasets.records import FLOW_MAPS
from ms2.render.base import Rendering
from ms2.render.scene3d.flow import optical_flow
from ms2.render.scene3d.renderer import Renderer3D
from ms2.scene.batch import SceneBatch

FLOW_SCALE, FLOW_ZERO = 64, 2**15
"""Steps of flow per pixel, and the value of no motion."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def flow_files(
    renderer: Renderer3D,
    scenes: SceneBatch,
    rendering: Rendering,
    following: Sequence[int | None],
    names: Sequence[str],
) -> Iterator[Mapping[str, bytes]]:
    """Compute the flow maps of frames.

    Args:
        renderer: The renderer.
        scenes: The frames.
        rendering: Their images and labels.
        following: Index of the next frame of each; None for the last frame of a sequence.
        names: Which of `FLOW_MAPS`.

    Yields:
        Contents of each frame's maps by name; none without a next frame.
    """
    first = [i for i, after in enumerate(following) if after is not None]
    found: list[Mapping[str, bytes]] = [{} for _ in following]
    if first:
        device = rendering.instances.device
        at = torch.tensor(first, device=device)
        after = torch.tensor([following[i] for i in first], device=device)
        drawn: torch.Tensor = getattr(rendering, "drawn", rendering.instances)
        depth: torch.Tensor = rendering.depth  # type: ignore[attr-defined]
        flow, *masks = optical_flow(
            renderer.assemble(scenes[at]), renderer.assemble(scenes[after]), drawn[at], depth[at], drawn[after],
            depth[after],
        )  # fmt: skip
        vectors = flow.cpu().numpy()
        valid = {name: mask.cpu().numpy() for name, mask in zip(FLOW_MAPS, masks, strict=True) if name in names}
        for row, i in enumerate(first):
            found[i] = {name: encode_deep(flow_steps(vectors[row], mask[row])) for name, mask in valid.items()}
    return iter(found)


def flow_steps(flow: Float[np.ndarray, "2 h w"], valid: Bool[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w 3"]:
    """Convert flow to KITTI's steps: 64 u + 2^15, 64 v + 2^15, and 1 where it is valid; zeros elsewhere.

    What moves by 512 pixels or more has no steps, and is not valid.
    """
    steps = np.rint(flow.astype(np.float64) * FLOW_SCALE + FLOW_ZERO)
    valid = valid & ((steps >= 0) & (steps < 2 * FLOW_ZERO)).all(0)
    return np.where(valid[..., None], np.stack([*steps, np.ones_like(steps[0])], -1), 0).astype(np.uint16)


def encode_deep(pixels: UInt16[np.ndarray, "h w 3"]) -> bytes:
    """Encode a colour image of 16 bits as PNG, which Pillow does not write."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    differences = rows - np.vstack([np.zeros_like(rows[:1]), rows[:-1]])  # to the row above: filter 2
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), differences])
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def decode_deep(content: bytes) -> UInt16[np.ndarray, "h w 3"]:
    """Decode what `encode_deep` wrote."""
    width, height = struct.unpack(">II", content[16:24])
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(content[start + 4 : start + 4 + length]), np.uint8).reshape(height, -1)[:, 1:]
    return np.add.accumulate(rows, 0, np.uint8).reshape(-1).view(">u2").astype(np.uint16).reshape(height, width, 3)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
