"""Image files of a data set: what is drawn into them, what is noted of them, and how one is drawn again."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ms2.core.images import encode, to_pixels
from ms2.datasets.folder import SetFolder
from ms2.datasets.records import RecordError, drawable, scene_from_plain
from ms2.models.opening import build
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

ENDINGS = {"png": "png", "jpeg": "jpg"}
"""Endings of the images' names."""
DEPTH_SCALE = 256
"""Steps of a depth image for each metre, as KITTI has it."""


def pixels_of(rendering: Rendering) -> list[np.ndarray]:
    """Images as they are written."""
    return [to_pixels(image) for image in rendering.image.cpu()]


def depths_of(rendering: Rendering) -> list[np.ndarray] | None:
    """Depth as 16-bit images; None of a flat world."""
    depth: Float[torch.Tensor, "b h w"] | None = getattr(rendering, "depth", None)
    if depth is None:
        return None
    steps = torch.where(depth.isfinite(), depth * DEPTH_SCALE, 0).round().clamp(0, 65535)
    return list(steps.cpu().numpy().astype(np.uint16))


def facts_of(name: str, content: bytes, rendering: Rendering, i: int) -> dict[str, Any]:
    """What the record of the i-th image says of its file."""
    height, width = rendering.image.shape[-2:]
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    facts = {"file": name, "width": width, "height": height, "bytes": len(content), "hash": digest}
    projection: Float[torch.Tensor, "b 3 4"] | None = getattr(rendering, "projection", None)
    return facts if projection is None else facts | {"projection": projection[i].tolist()}


def is_whole(path: Path, facts: dict[str, Any] | None) -> bool:
    """Whether a file is there, as long as its record says."""
    return facts is not None and path.is_file() and path.stat().st_size == facts.get("bytes")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums don't depend on how many threads share them, and images not on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def render_record(path: Path) -> tuple[bytes, str, bool]:
    """Draw the image of a record again.

    Args:
        path: The record, ``scenes/NUMBER.json`` of a data set.

    Returns:
        The image file's content, its name, and whether these are the recorded bytes.

    Raises:
        UserError: If it is no record, or lies outside of a data set.
    """
    record, root = SetFolder(path.parent).read_json(path.name) or {}, path.absolute().parent.parent
    if not isinstance(record.get("scene"), dict) or not isinstance(record.get("image"), dict):
        raise RecordError(f"{path} is no record of an image: those lie under scenes/ in a data set")
    about = SetFolder(root).read_json("dataset.json") or {}
    if not isinstance(about.get("world"), dict) or about.get("image") not in ENDINGS:
        raise RecordError(
            f"{path} lies outside of a data set: {root / 'dataset.json'}, which describes its world, is missing"
        )
    world = build({"world": about["world"]}, None, root.name).world
    scenes: SceneBatch = drawable(scene_from_plain(record["scene"], world.classes), world.renderer)
    with one_thread(), torch.no_grad():
        rendering = world.renderer.render_labelled(scenes)
    content = encode(pixels_of(rendering)[0], about["image"])
    name = f"{path.stem}.{ENDINGS[about['image']]}"  # a record's own word is not to be trusted with a path
    return content, name, hashlib.blake2b(content, digest_size=16).hexdigest() == record["image"].get("hash")
