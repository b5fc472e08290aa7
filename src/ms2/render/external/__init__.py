"""Rendering by any other program, which is handed scenes as JSON."""

from ms2.render.external.renderer import ExternalRenderer, ExternalRendererError

__all__ = ["ExternalRenderer", "ExternalRendererError"]
