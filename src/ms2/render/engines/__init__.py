"""Engines that draw 3D scenes."""
