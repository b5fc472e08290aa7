"""All recorded sections, by the name of their file."""

import record_measures
import record_parts
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
}
