"""Engines that render 3D scenes, one folder each; the interface is `ms2.render.scene3d.engine.Engine`."""

from ms2.render.engines.blender import Blender
from ms2.render.engines.warp import WarpEngine

__all__ = ["Blender", "WarpEngine"]
