"""LightningModules: extractor training, pretraining, structure learning."""

from ms2.tasks.extractor import ExtractorTraining
from ms2.tasks.metasim2 import MetaSim2, Samples
from ms2.tasks.pretraining import Pretraining
from ms2.tasks.probe import probe
from ms2.tasks.stages import Stage, StageResult, run_stage, save_atomically, say

__all__ = [
    "ExtractorTraining",
    "MetaSim2",
    "Pretraining",
    "Samples",
    "Stage",
    "StageResult",
    "probe",
    "run_stage",
    "save_atomically",
    "say",
]
