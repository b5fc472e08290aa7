"""Image files of a data set: encoding, metadata, and re-rendering from a record."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16

from ms2.core.hashing import digest
from ms2.core.images import encode, to_pixels
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.native import SUFFIX_BY_FORMAT
from ms2.datasets.records import ImageFile
from ms2.models.opening import build_model
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch
from ms2.scene.records import RecordError, SceneRecord, from_record

DEPTH_SCALE = 256
"""Steps of a depth image per metre, as in KITTI's."""
MAX_DEPTH_STEPS = 65535
"""Largest number of steps that a depth image holds."""


def image_arrays(rendering: Rendering) -> list[UInt8[np.ndarray, "..."]]:
    """Convert rendered images to 8-bit arrays."""
    return [to_pixels(image) for image in rendering.image.cpu()]


def depth_arrays(rendering: Rendering) -> list[UInt16[np.ndarray, "h w"]] | None:
    """Convert depth to 16-bit arrays, 0 (as KITTI's, unknown) for 256 m and more; None for 2D renderers."""
    depth: Float[torch.Tensor, "b h w"] | None = getattr(rendering, "depth", None)
    if depth is None:
        return None
    steps = (depth * DEPTH_SCALE).round()
    steps = torch.where(steps <= MAX_DEPTH_STEPS, steps, 0)  # infinite depth too
    return list(steps.cpu().numpy().astype(np.uint16))


def content_hash(content: bytes) -> str:
    """Compute the hash of an image file's content that its record holds."""
    return digest(content, 16)


def describe_image(name: str, content: bytes, rendering: Rendering, i: int) -> ImageFile:
    """Describe the file of the i-th image of a rendering, for its record."""
    height, width = rendering.image.shape[-2:]
    projection: Float[torch.Tensor, "b 3 4"] | None = getattr(rendering, "projection", None)
    return ImageFile(
        file=name,
        width=width,
        height=height,
        bytes=len(content),
        hash=content_hash(content),
        projection=None if projection is None else projection[i].tolist(),
    )


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Use one thread, so that floating-point sums do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def render_record(path: Path) -> tuple[bytes, str, bool]:
    """Render the image of a record again.

    Args:
        path: The record, ``scenes/NUMBER.json`` of a data set.

    Returns:
        The image file's content, its name, and whether it equals the recorded file.

    Raises:
        UserError: If it is no record, or is not in a data set.
    """
    if not path.exists():
        raise RecordError(f"there is no file {path.absolute()}: give a record, scenes/NUMBER.json of a data set")
    record, root = DataSetFolder(path.parent).read_json(path.name) or {}, path.absolute().parent.parent
    if not isinstance(record.get("scene"), dict) or not isinstance(record.get("image"), dict):
        raise RecordError(f"{path} is no record of an image: those lie under scenes/ in a data set")
    about = DataSetFolder(root).read_json("dataset.json") or {}
    if not isinstance(about.get("world"), dict) or about.get("image") not in SUFFIX_BY_FORMAT:
        raise RecordError(
            f"{path} lies outside of a data set: {root / 'dataset.json'}, which describes its world, is missing or "
            "damaged"
        )
    world = build_model({"world": about["world"]}, None, root.name).model.world
    graph = SceneRecord.from_json(record["scene"])
    scenes: SceneBatch = check_renderable(from_record(graph, world.classes), world.renderer)
    with single_threaded(), torch.no_grad():
        rendering = world.renderer.render_labelled(scenes)
    content = encode(image_arrays(rendering)[0], about["image"])
    name = f"{path.stem}.{SUFFIX_BY_FORMAT[about['image']]}"  # not the record's file name, which may be any path
    return content, name, content_hash(content) == record["image"].get("hash")


def check_renderable(scenes: SceneBatch, renderer: Renderer) -> SceneBatch:
    """Check that scenes have the renderer's attributes; add empty tensors for them to batches without objects.

    Raises:
        RecordError: If an attribute is missing, or out of the renderer's bounds.
    """
    if not bool(scenes.mask.any()):
        none = torch.zeros(scenes.classes.shape)
        scenes = scenes.with_attributes(**{attribute.name: none for attribute in renderer.attributes})
    used = {name: values[scenes.mask] for name, values in scenes.attributes.items()}
    for wanted, found in ((renderer.bounds(scenes), used), (renderer.environment, scenes.environment)):
        for name, low, high, *_ in wanted:
            if name not in found:
                raise RecordError(f"the scene lacks {name!r}, which {type(renderer).__name__} reads")
            if not bool(((found[name] >= low) & (found[name] <= high)).all()):
                raise RecordError(f"{name} has to be from {low:g} to {high:g}, not {found[name].tolist()}")
    return scenes
