"""Path tracing of 3D scenes with Blender's Cycles, in a process of its own."""

from ms2.render.engines.blender.engine import Blender

__all__ = ["Blender"]
