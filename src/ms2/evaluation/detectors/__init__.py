"""Downstream comparison: detectors trained on generated data (the paper's Tables 1 and 2)."""
