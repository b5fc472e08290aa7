"""What is learned: the structure model q(T) and the parameter model q(V | T)."""

from ms2.models.parameters import LearnedParameters, ParameterModel
from ms2.models.structure import SamplingError, Score, StructureModel

__all__ = ["LearnedParameters", "ParameterModel", "SamplingError", "Score", "StructureModel"]
