"""A batched 3D rasteriser on NVIDIA Warp: textured meshes under sun and sky, with instance ids, depth and boxes."""

from ms2.render.engines.warp.engine import Labels, Raster, WarpEngine

__all__ = ["Labels", "Raster", "WarpEngine"]
