"""3D scenes in batches: meshes, instances, cameras and light; no engine is known here."""

from ms2.render.scene3d.calibration import KittiError, read_projection
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.light import Environment
from ms2.render.scene3d.meshes import Mesh, MeshLibrary, joined

__all__ = ["Camera", "Environment", "InstanceBatch", "KittiError", "Mesh", "MeshLibrary", "joined", "read_projection"]
