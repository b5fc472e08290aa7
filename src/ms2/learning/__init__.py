"""LightningModules: extractor training, pretraining, autoencoding, learning of structure and parameters."""

from ms2.learning.autoencoding import Autoencoding
from ms2.learning.data import TargetImages
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.learner import Learner
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.parameter_learner import ParameterLearner
from ms2.learning.pretraining import Pretraining
from ms2.learning.probe import probe
from ms2.learning.reward import TaskReward
from ms2.learning.stage import Stage
from ms2.learning.stages import STAGES, run_stage, say
from ms2.learning.structure_learner import Samples, StructureLearner
from ms2.learning.turns import Turns

__all__ = [
    "STAGES",
    "Autoencoding",
    "ExtractorTraining",
    "Learner",
    "MetaSim2",
    "ParameterLearner",
    "Pretraining",
    "Samples",
    "Stage",
    "StructureLearner",
    "TargetImages",
    "TaskReward",
    "Turns",
    "probe",
    "run_stage",
    "say",
]
