"""What is wrong with meshes that a user brings along, and a sheet that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ms2.core.images import image_grid
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import Engine
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import Mesh, MeshLibrary
from ms2.render.scene3d.scene import Scene3D
from ms2.render.scene3d.shapes import plane, polygon

TILE = (200, 280)
"""Height and width of a mesh's picture in pixels."""
HEADING = 2.5
"""Heading of meshes on the sheet, in radians: their front is towards the camera, and to the left."""
MAX_DIAGONAL, MAX_HEIGHT = 2.1, 1.4
"""Largest diagonal and height of a mesh on the sheet in metres, 4 m from the camera."""
CAPTION_HEIGHT, FONT_SIZE = 18, 12


class Finding(NamedTuple):
    """Something to know about a mesh, with what to do.

    Attributes:
        severity: ``error`` for what can't be used; ``warning`` for what the images would show; ``note`` for what is
            mended when the mesh is loaded, or costs time.
        text: What it is, and what to do.
    """

    severity: Literal["error", "warning", "note"]
    text: str


@dataclass(frozen=True, eq=False)
class AssetReport:
    """What was found about a file, or about the folder.

    Attributes:
        name: Path of the file in the folder; empty for the folder as a whole.
        findings: What there is to know.
        mesh: The mesh as it will be used: scaled, turned, on the ground. None if there is none.
        factor: Factor by which it was scaled.
    """

    name: str
    findings: tuple[Finding, ...]
    mesh: Mesh | None = None
    factor: float = 1.0

    def lines(self) -> list[str]:
        """Format the report: a line about the mesh, and one for each finding."""
        about = []
        if self.mesh is not None:
            width, length, height = (self.mesh.vertices.max(0) - self.mesh.vertices.min(0)).tolist()
            scaled = "" if self.factor == 1 else f" (scaled by {self.factor:.4g})"
            textures = len(self.mesh.textures)
            about.append(
                f"{width:.2f} x {length:.2f} x {height:.2f} m{scaled}, {len(self.mesh.triangles)} triangles, "
                f"{textures} texture{'' if textures == 1 else 's'}"
            )
        head = ": ".join(part for part in (self.name, *about) if part)
        found = [f"{'  ' if head else ''}{severity}: {text}" for severity, text in self.findings]
        return [*([head] if head else []), *found]


def contact_sheet(
    reports: Sequence[AssetReport], engine: Engine, columns: int = 4
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Draw each mesh on the ground, with its front towards the lower left, where an arrow points; None without any.

    Args:
        reports: What was found about the files.
        engine: Engine that draws them.
        columns: Meshes in a row.
    """
    shown = [report for report in reports if report.mesh is not None]
    if not shown:
        return None
    meshes = {report.name: report.mesh for report in shown if report.mesh is not None}
    arrow = polygon([(-0.16, 0, 0.01), (0.16, 0, 0.01), (0, 0.3, 0.01)], colour=(0.85, 0.1, 0.1), casts_shadow=False)
    ground = plane(60, 60, colour=(0.55, 0.56, 0.58), casts_shadow=False)
    library = MeshLibrary({**meshes, " ground": ground, " arrow": arrow})
    number = len(shown)
    low, high = (np.stack([getattr(mesh.vertices, end)(0) for mesh in meshes.values()]) for end in ("min", "max"))
    # all are drawn about equally large
    factor = np.minimum(MAX_DIAGONAL / np.linalg.norm(high - low, axis=1), MAX_HEIGHT / (high - low)[:, 2].clip(1e-12))
    scale = torch.as_tensor(factor, dtype=torch.float32)
    reach = torch.as_tensor(high[:, 1], dtype=torch.float32) * scale
    index = torch.stack([torch.arange(number), *(torch.full((number,), number + k) for k in range(2))], 1)
    front = torch.stack([-torch.sin(torch.tensor(HEADING)), torch.cos(torch.tensor(HEADING))])
    position = torch.zeros(number, 3, 3)
    position[:, :, 1] = 4.0
    position[:, 2, :2] += front * (reach + 0.1)[:, None]
    yaw = torch.tensor([HEADING, 0.0, HEADING]).expand(number, -1)
    size = torch.ones(number, 3, 3)
    size[:, 0] = scale[:, None]
    instances = InstanceBatch.place_upright(index, position, yaw, size, torch.full((number, 3, 3), 0.6))
    height, width = TILE
    focal, centre = torch.full((number, 2), 1.9 * height), torch.tensor([[width / 2, height / 2]]).expand(number, -1)
    camera = Camera.from_pinhole(focal, centre, 2.0, -0.38)
    image = engine.render(Scene3D(library, instances, camera, Lighting.daylight(number)), TILE, labels=False).image
    tiles = [_captioned(tile, report.name) for tile, report in zip(image, shown, strict=True)]
    return image_grid(torch.stack(tiles), min(columns, number))


def _captioned(image: torch.Tensor, text: str) -> torch.Tensor:
    """Put a caption above an image."""
    strip = Image.new("RGB", (image.shape[2], CAPTION_HEIGHT), "white")
    ImageDraw.Draw(strip).text((3, 1), text, "black", ImageFont.load_default(FONT_SIZE))
    caption = torch.from_numpy(np.array(strip)).permute(2, 0, 1) / 255
    return torch.cat([caption.to(image), image], 1)
