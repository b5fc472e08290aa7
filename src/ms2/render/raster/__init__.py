"""A batched 3D rasteriser on NVIDIA Warp: textured meshes under sun and sky, with instance ids, depth and boxes."""

from ms2.render.raster.calibration import KittiError, read_projection
from ms2.render.raster.camera import Camera
from ms2.render.raster.engine import Labels, Raster, Rasteriser
from ms2.render.raster.meshes import Mesh, MeshLibrary, joined
from ms2.render.raster.scenes import Environment, InstanceBatch

__all__ = [
    "Camera",
    "Environment",
    "InstanceBatch",
    "KittiError",
    "Labels",
    "Mesh",
    "MeshLibrary",
    "Raster",
    "Rasteriser",
    "joined",
    "read_projection",
]
