"""Gradients: from scores of samples to the weights of structure and parameter models."""

from ms2.gradients.advantages import Advantage, LeaveOneOut, MovingAverage, Normalised
from ms2.gradients.base import Drawn, Gradient
from ms2.gradients.finite_difference import FiniteDifference
from ms2.gradients.pathwise import Pathwise
from ms2.gradients.score_function import ScoreFunction
from ms2.gradients.straight_through import StraightThrough

__all__ = [
    "Advantage",
    "Drawn",
    "FiniteDifference",
    "Gradient",
    "LeaveOneOut",
    "MovingAverage",
    "Normalised",
    "Pathwise",
    "ScoreFunction",
    "StraightThrough",
]
