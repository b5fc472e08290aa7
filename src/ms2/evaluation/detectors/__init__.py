"""Detectors: what generated data is worth (Tables 1 and 2)."""
