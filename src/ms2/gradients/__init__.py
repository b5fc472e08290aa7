"""Gradient estimators of the mean cost: advantages for REINFORCE, and gradients of the parameter model."""

from ms2.gradients.advantages import Advantage, LeaveOneOut, MovingAverage, Normalised
from ms2.gradients.base import Gradient, SampledScenes
from ms2.gradients.finite_difference import FiniteDifference
from ms2.gradients.pathwise import Pathwise
from ms2.gradients.score_function import ScoreFunction
from ms2.gradients.straight_through import StraightThrough

__all__ = [
    "Advantage",
    "FiniteDifference",
    "Gradient",
    "LeaveOneOut",
    "MovingAverage",
    "Normalised",
    "Pathwise",
    "SampledScenes",
    "ScoreFunction",
    "StraightThrough",
]
