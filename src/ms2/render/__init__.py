"""Renderers: images and labels of scenes."""

from ms2.render.base import Renderer, Rendering, asset_licence

__all__ = ["Renderer", "Rendering", "asset_licence"]
