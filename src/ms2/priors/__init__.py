"""Hand-made distributions: of structure, of parameters."""

from ms2.priors.parameters import ParameterPrior, uniform
from ms2.priors.structure import Mixture, Repetition, StructurePrior, fit_pcfg

__all__ = ["Mixture", "ParameterPrior", "Repetition", "StructurePrior", "fit_pcfg", "uniform"]
