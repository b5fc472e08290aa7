"""Batched 3D rasteriser on NVIDIA Warp: textured meshes, sun and sky, instance ids, depth and boxes."""

from ms2.render.engines.warp.engine import WarpEngine

__all__ = ["WarpEngine"]
