"""Objectives: a score of each generated sample, low where the target's density exceeds the model's."""

from ms2.objectives.base import Objective
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness

__all__ = ["KDE", "BatchMMD", "ForwardKL", "MMDWitness", "Objective"]
