"""Evaluation of runs: measurements, figures, files and logs."""
