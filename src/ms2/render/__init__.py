"""Renderers."""

from ms2.render.base import Renderer, Rendering, foreign

__all__ = ["Renderer", "Rendering", "foreign"]
