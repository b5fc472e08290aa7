"""Sequences: frames of scenes in motion, and what links one frame to the next."""
