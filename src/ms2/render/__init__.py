"""Renderers."""

from ms2.render.base import Renderer, Rendering

__all__ = ["Renderer", "Rendering"]
