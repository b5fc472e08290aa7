"""Batched 2D compositing: `layers` of rotated rectangles with transparency, and `sprites` blended by maximum."""
