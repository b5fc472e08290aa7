"""3D scenes in batches: meshes, instances, cameras, lighting, and the interface of the engines that render them."""

from ms2.render.scene3d.calibration import KittiError, read_projection
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import Engine, InstanceLabels, RasterOutput
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import Mesh, MeshLibrary, concatenate_meshes

__all__ = [
    "Camera",
    "Engine",
    "InstanceBatch",
    "InstanceLabels",
    "KittiError",
    "Lighting",
    "Mesh",
    "MeshLibrary",
    "RasterOutput",
    "concatenate_meshes",
    "read_projection",
]
