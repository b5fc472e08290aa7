"""LightningModules: extractor training, pretraining, autoencoding, learning of structure and parameters."""

from ms2.tasks.autoencoding import Autoencoding
from ms2.tasks.extractor import ExtractorTraining
from ms2.tasks.metasim2 import MetaSim2, Samples
from ms2.tasks.parameter_learning import ParameterLearning
from ms2.tasks.pretraining import Pretraining
from ms2.tasks.probe import probe
from ms2.tasks.reward import TaskReward
from ms2.tasks.stages import Stage, StageResult, run_stage, save_atomically, say

__all__ = [
    "Autoencoding",
    "ExtractorTraining",
    "MetaSim2",
    "ParameterLearning",
    "Pretraining",
    "Samples",
    "Stage",
    "StageResult",
    "TaskReward",
    "probe",
    "run_stage",
    "save_atomically",
    "say",
]
