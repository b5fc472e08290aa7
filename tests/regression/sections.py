"""All recorded sections, by the name of their file."""

import record_measures
import record_parts
import record_runs
import record_sets
from recording import PIXELS, Section, Tolerance

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
    # a detector that has hardly begun to learn finds one object more or less on other processors
    "comparison": Section(
        record_runs.comparison,
        record_runs.LEARNED,
        {"AP": Tolerance(0, 0.3), "FID": Tolerance(0.02, 2e-4), "KID": Tolerance(0.02, 2e-5)},
    ),
    "report": Section(record_runs.report, Tolerance(2e-3, 2e-3)),
}
