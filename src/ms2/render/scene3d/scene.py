"""Scenes in 3D: what engines render."""

from dataclasses import dataclass

from ms2.core.errors import UserError
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import MeshLibrary


@dataclass(frozen=True)
class Scene3D:
    """b scenes in 3D.

    Attributes:
        meshes: The meshes that instances refer to by index.
        instances: Placed meshes. Of renderers' scenes, first one for each object of the scene graph, by its index,
            then the ground.
        camera: One camera per scene.
        lighting: Light and atmosphere of each scene.
    """

    meshes: MeshLibrary
    instances: InstanceBatch
    camera: Camera
    lighting: Lighting

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.instances)

    def objects(self, number: int) -> InstanceBatch:
        """Return the first instances of each scene."""
        placed = self.instances
        return InstanceBatch(placed.mesh[:, :number], placed.transform[:, :number], placed.colour[:, :number])

    def check(self) -> None:
        """Check that an engine can render the scenes.

        Raises:
            UserError: If a mesh index is out of range, numbers of scenes differ, or a matrix is not finite.
        """
        counts = {"instances": len(self.instances), "camera": len(self.camera), "lighting": len(self.lighting)}
        if len(set(counts.values())) > 1 or not len(self.instances):
            listed = ", ".join(f"{name} for {count}" for name, count in counts.items())
            raise UserError(f"all inputs must have the same number of scenes, at least one; there are {listed}")
        used, number = self.instances.mesh, len(self.meshes)
        if used.numel() and (int(used.max()) >= number or int(used.min()) < -1):
            wrong = used[(used >= number) | (used < -1)][0]
            raise UserError(
                f"there is no mesh {int(wrong)}: the library has 0 to {number - 1}, and -1 marks an unused entry"
            )
        for name, values in (("transform", self.instances.transform[used >= 0]), ("camera", self.camera.pose)):
            if not values.isfinite().all():
                raise UserError(f"a {name} matrix has values that are not finite")
        if not (self.camera.focal > 0).all():
            raise UserError("a camera's focal length is not positive")
        length = self.lighting.sun.norm(dim=1)
        if not ((length > 0) & length.isfinite()).all():
            raise UserError("the sun's direction must be a vector of positive length; for no sun set its colour to 0")
