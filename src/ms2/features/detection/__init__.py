"""Detectors that were trained on photographs, and what is read of what they find."""
