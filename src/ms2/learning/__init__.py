"""LightningModules: extractor training, pretraining, autoencoding, learning of structure and parameters."""

from ms2.learning.autoencoding import Autoencoding
from ms2.learning.data import TargetImages
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.metasim2 import MetaSim2, Samples
from ms2.learning.parameter_learner import ParameterLearning
from ms2.learning.pretraining import Pretraining
from ms2.learning.probe import probe
from ms2.learning.reward import TaskReward
from ms2.learning.stage import Stage
from ms2.learning.stages import STAGES, StageResult, run_stage, say

__all__ = [
    "STAGES",
    "Autoencoding",
    "ExtractorTraining",
    "MetaSim2",
    "ParameterLearning",
    "Pretraining",
    "Samples",
    "Stage",
    "StageResult",
    "TargetImages",
    "TaskReward",
    "probe",
    "run_stage",
    "say",
]
