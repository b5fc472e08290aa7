"""Export of 3D scenes to files that other programs render."""
