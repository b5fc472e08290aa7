"""Learned models: the structure model q(T), the parameter model q(V | T), and scene models that sample from both."""

from ms2.models.networks import GRU, LSTM, SequenceNetwork, Transformer
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import ROWS, Row, SceneModel
from ms2.models.structure import SamplingError, SequenceLogProb, StructureModel

__all__ = [
    "GRU",
    "LSTM",
    "ROWS",
    "ParameterModel",
    "Row",
    "SamplingError",
    "SceneModel",
    "SequenceLogProb",
    "SequenceNetwork",
    "StructureModel",
    "Transformer",
]
