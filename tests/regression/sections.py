"""All recorded sections, by the name of their file."""

import record_measures
import record_parts
import record_runs
import record_sets
import torch
from recording import PIXELS, Section, Tolerance

HAS_AVX2 = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
DETECTORS = Tolerance(0, 0.02 if HAS_AVX2 else 0.3)
"""Tolerance of AP: other rounding changes how a detector that has hardly begun to learn ranks objects.

With two threads, or kernels for AVX, AP differs by up to 0.008; without AVX2, by up to 0.2.
"""
SECTIONS = {
    "structure_priors": Section(record_parts.structure_priors),
    "parameter_priors": Section(record_parts.parameter_priors, Tolerance(1e-4, 1e-4)),
    "structure_models": Section(record_parts.structure_models),
    "learning_parts": Section(record_parts.learning_parts, Tolerance(1e-4, 1e-5), {"gradients": Tolerance(1e-3, 1e-4)}),
    "features": Section(record_parts.features, Tolerance(1e-4, 1e-5)),
    "distances": Section(record_measures.distances),
    "average_precision": Section(record_measures.average_precision),
    "driving": Section(record_sets.driving, Tolerance(1e-3, 1e-3), PIXELS),
    "data_sets": Section(record_sets.data_sets, Tolerance(1e-3, 1e-3), PIXELS),
    "structure_runs": Section(record_runs.structure_runs, record_runs.LEARNED, record_runs.RUN),
    "parameter_runs": Section(record_runs.parameter_runs, record_runs.LEARNED, record_runs.RUN),
    "run_data_sets": Section(record_runs.run_data_sets, Tolerance(1e-3, 1e-3), PIXELS),
    "comparison": Section(
        record_runs.comparison,
        record_runs.LEARNED,
        {"AP": DETECTORS, "FID": record_runs.RUN["fid"], "KID": record_runs.RUN["kid"]},
    ),
    "report": Section(record_runs.report, Tolerance(2e-3, 2e-3)),
}
