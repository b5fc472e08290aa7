"""Compositing in 2D: batched sprites and layers."""
