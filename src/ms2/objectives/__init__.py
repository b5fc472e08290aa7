"""Objectives: a score of each generated sample, which is a cost: low where the target's density is the higher one."""

from ms2.objectives.base import Objective
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness

__all__ = ["KDE", "BatchMMD", "ForwardKL", "MMDWitness", "Objective"]
