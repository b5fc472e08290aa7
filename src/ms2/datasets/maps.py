"""Dense ground truth beside an image's labels: panoptic maps, normals, amodal masks and depth in floats."""

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from ms2.core.errors import UserError, suggest
from ms2.core.images import encode
from ms2.datasets.masks import encode_mask
from ms2.datasets.plan import Plan
from ms2.datasets.records import FLOW_MAPS, ObjectLabel, Segment
from ms2.datasets.sequences.flow import flow_files
from ms2.render.base import Rendering
from ms2.render.scene3d.renderer import Renderer3D
from ms2.scene.batch import SceneBatch
from ms2.world import World

MAP_SUFFIXES: Mapping[str, str | None] = {
    "panoptic": "png", "normals": "png", "amodal": None, "float_depth": "tiff", **dict.fromkeys(FLOW_MAPS, "png"),
}  # fmt: skip
"""Suffix of each map's files, by its name; None for masks, which records hold."""
FLAT_MAPS = ("panoptic",)
"""Maps that 2D worlds have too."""


class ImageMaps(NamedTuple):
    """The maps of one image.

    Attributes:
        labels: The image's labels, with amodal masks if asked for.
        files: Contents of the maps' files by name.
        segments: Segments of the panoptic map, if asked for.
    """

    labels: Sequence[ObjectLabel]
    files: Mapping[str, bytes]
    segments: Sequence[Segment] | None


def with_maps(plan: Plan, names: Sequence[str]) -> Plan:
    """Add maps to a plan, those that formats are made from."""
    return dataclasses.replace(plan, maps=tuple(dict.fromkeys([*plan.maps, *names])))


class DenseMaps:
    """Renders and encodes the maps of images.

    - ``panoptic``: PNG in COCO's encoding: a pixel's segment is red + 256 green + 256² blue; surfaces come first, from
      1 on, then the objects.
    - ``normals``: PNG: red, green and blue are 255 (n + 1) / 2 for the components along the camera's x (right), y
      (down) and z (forward); black for the sky.
    - ``float_depth``: TIFF of 32-bit floats: metres along the optical axis, infinite for the sky.
    - ``flow_occ``, ``flow_noc``: PNG of 16 bits in KITTI's encoding: motion to the next frame of a sequence, u 64 +
      2^15 and v 64 + 2^15, and 1 where it is valid: for all points, and for those that are visible in the next frame.
    - ``amodal``: masks of whole objects within the image, and what hides them, in the labels.

    Args:
        world: The world that is rendered.
        names: Names of the maps.

    Raises:
        UserError: If there is no map of a name, or the world has none.
    """

    def __init__(self, world: World, names: Sequence[str]) -> None:
        self.world, self.names = world, names
        for name in names:
            if name not in MAP_SUFFIXES:
                raise UserError(f"there is no map {name!r}. {suggest(name, MAP_SUFFIXES)}")
            if name not in FLAT_MAPS and not isinstance(world.renderer, Renderer3D):
                raise UserError(
                    f"images of {type(world.renderer).__name__} have no map {name!r}, which is of 3D scenes: leave it "
                    f"out. Maps of all worlds: {', '.join(FLAT_MAPS)}."
                )

    @property
    def suffixes(self) -> dict[str, str]:
        """Suffixes of the maps that have files, by name."""
        return {name: suffix for name in self.names if (suffix := MAP_SUFFIXES[name]) is not None}

    def render(
        self,
        scenes: SceneBatch,
        rendering: Rendering,
        labels: Sequence[Sequence[ObjectLabel]],
        following: Sequence[int | None] = (),
    ) -> Iterator[ImageMaps]:
        """Render the maps of images, one image after the other.

        Args:
            scenes: The scenes.
            rendering: Their images and labels.
            labels: The labels of each image.
            following: Index of the next frame of each image of a sequence; None where there is none.
        """
        renderer = self.world.renderer
        ids = segment_ids(rendering, len(renderer.surfaces)) if "panoptic" in self.names else None
        normals = depths = None
        if isinstance(renderer, Renderer3D):
            normals = renderer.normals(scenes).cpu().numpy() if "normals" in self.names else None
            depths = rendering.depth.cpu().numpy() if "float_depth" in self.names else None  # type: ignore[attr-defined]
        flows = self._flows(scenes, rendering, following)
        amodal = self._amodal(scenes, rendering, labels) if "amodal" in self.names else iter(labels)
        for i, image_labels in enumerate(amodal):
            files, segments = dict(next(flows, {})), None
            if ids is not None:
                files["panoptic"] = encode(encode_ids(ids[i]), "png")
                classes = [self.world.classes[c] if c >= 0 else "" for c in rendering.classes[i].tolist()]
                segments = image_segments(ids[i], renderer.surfaces, classes)
            if normals is not None:
                files["normals"] = encode(encode_normals(normals[i]), "png")
            if depths is not None:
                files["float_depth"] = encode_floats(depths[i])
            yield ImageMaps(image_labels, files, segments)

    def _flows(
        self, scenes: SceneBatch, rendering: Rendering, following: Sequence[int | None]
    ) -> Iterator[Mapping[str, bytes]]:
        """Render the flow maps of each image, if asked for."""
        renderer = self.world.renderer
        names = [name for name in self.names if name in FLOW_MAPS]
        if not names or not isinstance(renderer, Renderer3D):
            return iter(())
        return flow_files(renderer, scenes, rendering, following, names)

    def _amodal(
        self, scenes: SceneBatch, rendering: Rendering, labels: Sequence[Sequence[ObjectLabel]]
    ) -> Iterator[Sequence[ObjectLabel]]:
        """Add amodal masks to the labels of each image, by a pass for each object."""
        renderer = self.world.renderer
        assert isinstance(renderer, Renderer3D)
        wanted = torch.zeros_like(scenes.mask)
        for i, image_labels in enumerate(labels):
            wanted[i, [label.object for label in image_labels]] = True
        alone = renderer.amodal_depths(scenes, wanted)  # in the order of the labels, which is that of the objects
        for i, image_labels in enumerate(labels):
            instances = rendering.instances[i].cpu().numpy()
            depth = rendering.depth[i].cpu().numpy()  # type: ignore[attr-defined]
            found = []
            for label in image_labels:
                own = next(alone).cpu().numpy()
                visible = instances == label.object
                hidden = np.isfinite(own) & ~visible & (depth < own)
                hiders = np.unique(instances[hidden])
                found.append(
                    dataclasses.replace(
                        label,
                        amodal_segmentation=encode_mask(np.isfinite(own) | visible),
                        occluded_by=hiders[hiders >= 0].tolist(),
                    )
                )
            yield found


def segment_ids(rendering: Rendering, num_surfaces: int) -> Int[np.ndarray, "b h w"]:
    """Number the segments of images: surfaces from 1 on, then objects by their index."""
    surfaces = getattr(rendering, "surfaces", torch.zeros_like(rendering.instances))
    ids: Int[np.ndarray, "b h w"] = (
        torch.where(rendering.instances >= 0, rendering.instances + num_surfaces, surfaces).add(1).cpu().numpy()
    )
    return ids


def image_segments(ids: Int[np.ndarray, "h w"], surfaces: Sequence[str], classes: Sequence[str]) -> list[Segment]:
    """Describe the segments of an image.

    Args:
        ids: The segment of each pixel.
        surfaces: Names of the surfaces.
        classes: Class of each object.
    """
    from scipy.ndimage import find_objects  # takes a while to import

    numbers, inverse, areas = np.unique(ids, return_inverse=True, return_counts=True)
    slices = find_objects(inverse.reshape(ids.shape) + 1)
    found = []
    for number, area, (rows, columns) in zip(numbers.tolist(), areas.tolist(), slices, strict=True):
        i = number - 1 - len(surfaces)
        box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        category = classes[i] if i >= 0 else surfaces[number - 1]
        found.append(Segment(number, category, area, box, i if i >= 0 else None))
    return found


def encode_ids(ids: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert segments to the colours of COCO's panoptic maps."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)


def decode_ids(pixels: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """Convert the colours of a panoptic map to segments."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    return red + 256 * green + 256**2 * blue


def encode_normals(normals: Float[np.ndarray, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert normals to colours; zero vectors, of the sky, to black."""
    nothing: Bool[np.ndarray, "h w"] = (normals == 0).all(0)
    colours = ((normals + 1) / 2 * 255).round().astype(np.uint8)
    colours[:, nothing] = 0
    return np.ascontiguousarray(np.moveaxis(colours, 0, -1))


def encode_floats(values: Float[np.ndarray, "h w"]) -> bytes:
    """Encode floats as TIFF, without loss."""
    out = io.BytesIO()
    Image.fromarray(values.astype(np.float32)).save(out, "TIFF", compression="tiff_adobe_deflate")
    return out.getvalue()
