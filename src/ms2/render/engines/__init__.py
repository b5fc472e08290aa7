"""Engines that render 3D scenes, one folder each; the interface is `ms2.render.scene3d.engine.Engine`."""
