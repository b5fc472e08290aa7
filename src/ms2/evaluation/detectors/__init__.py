"""Downstream comparison: detectors trained on generated data (Tables 1 and 2)."""
