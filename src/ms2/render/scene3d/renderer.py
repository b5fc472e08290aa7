"""Base class of renderers of 3D scenes, which can be exported and have dense ground truth."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ms2.core.errors import UserError
from ms2.render.base import Renderer
from ms2.render.scene3d.asset_report import AssetReport
from ms2.render.scene3d.camera import inverse_pose
from ms2.render.scene3d.engine import Engine
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.scene import Scene3D
from ms2.scene.batch import SceneBatch

OBJECTS_PER_PASS = 16
"""Objects that are rendered by themselves at once, which bounds the memory."""


class Renderer3D(Renderer):
    """Base class of renderers whose scenes are meshes in front of a camera.

    Attributes:
        engine: Engine that renders the scenes.
        surfaces: Names of what is in the image besides objects, the sky first.
        cityscapes_ids: Cityscapes' label id of each class and surface.
    """

    engine: Engine
    surfaces: tuple[str, ...] = ("sky",)
    cityscapes_ids: Mapping[str, int] = {}

    @abstractmethod
    def assemble(self, scenes: SceneBatch) -> Scene3D:
        """Place the meshes of scenes, with camera and lighting; axes are x right, y forward, z up, in metres."""

    @abstractmethod
    def surface_of(self, mesh: str) -> int:
        """Return the index in ``surfaces`` of a mesh of the ground, given its name."""

    def processing(self, scenes: SceneBatch) -> dict[str, Float[Tensor, " b"]]:
        """Return what the camera does to images after they are rendered, by name; nothing by default."""
        return {}

    def check_assets(self, folder: Path, mend: bool = False) -> list[AssetReport]:
        """Check a folder of meshes that may take the place of the renderer's own.

        Args:
            folder: The folder.
            mend: Whether to write what can be mended to a file in the folder.

        Raises:
            UserError: If the renderer takes none, or the folder can't be used.
        """
        raise UserError(f"{type(self).__name__} takes no meshes from a folder")

    def poses(self, scenes: SceneBatch) -> Float[Tensor, "b 3 4"]:
        """Compute the pose of the camera whose axes 3D labels have, from its axes to the world's."""
        return inverse_pose(self.assemble(scenes).camera.pose)

    def normals(self, scenes: SceneBatch) -> Float[Tensor, "b 3 h w"]:
        """Compute normals in the camera's axes, x right, y down, z forward, of unit length; zeros for the sky.

        Raises:
            UserError: If the engine computes none.
        """
        return self.engine.render_normals(self.assemble(scenes), self.size)

    def amodal_depths(self, scenes: SceneBatch, wanted: Bool[Tensor, "b n"]) -> Iterator[Float[Tensor, "h w"]]:
        """Render objects by themselves, without what hides them.

        Args:
            scenes: The scenes.
            wanted: The objects.

        Yields:
            Of each, in order, its distance along the optical axis; infinite where it covers less than half of a pixel.
        """
        made = self.assemble(scenes)
        dark = replace(made.lighting, sun_colour=torch.zeros_like(made.lighting.sun_colour))  # saves the shadow map
        for part in wanted.nonzero().split(OBJECTS_PER_PASS):
            scene, i = part.unbind(1)
            placed = made.instances
            alone = InstanceBatch(
                placed.mesh[scene, i, None], placed.transform[scene, i, None], placed.colour[scene, i, None]
            )
            one = Scene3D(made.meshes, alone, _select(made.camera, scene), _select(dark, scene))
            yield from self.engine.label_engine.render(one, self.size, labels=False).depth


def _select(batch: Any, index: Tensor) -> Any:
    """Select scenes of a dataclass of tensors."""
    return type(batch)(*(getattr(batch, field.name)[index] for field in fields(batch)))
