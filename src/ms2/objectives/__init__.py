"""Objectives: a score of each generated sample, low where the target's density exceeds the model's."""

from ms2.objectives.base import KernelObjective, Objective
from ms2.objectives.energy import EnergyDistance
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness
from ms2.objectives.sliced_wasserstein import SlicedWasserstein

__all__ = [
    "KDE",
    "BatchMMD",
    "EnergyDistance",
    "ForwardKL",
    "KernelObjective",
    "MMDWitness",
    "Objective",
    "SlicedWasserstein",
]
