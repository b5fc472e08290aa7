"""Hand-made distributions: of structure, of parameters."""

from ms2.priors.histogram_placement import HistogramPlacement
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.priors.structure import ListLengthPrior, MixturePrior, StructurePrior, fit_pcfg

__all__ = [
    "HistogramPlacement",
    "ListLengthPrior",
    "MixturePrior",
    "ParameterPrior",
    "StructurePrior",
    "fit_pcfg",
    "sample_uniform",
]
