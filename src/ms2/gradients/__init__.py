"""Gradients: from scores of samples to the weights of structure and parameter models."""

from ms2.gradients.advantages import Estimator, LeaveOneOut, MovingAverage, Normalised
from ms2.gradients.base import Drawn, Gradient
from ms2.gradients.finite_difference import FiniteDifferences
from ms2.gradients.pathwise import Exact
from ms2.gradients.score_function import ScoreFunction
from ms2.gradients.straight_through import Reading

__all__ = [
    "Drawn",
    "Estimator",
    "Exact",
    "FiniteDifferences",
    "Gradient",
    "LeaveOneOut",
    "MovingAverage",
    "Normalised",
    "Reading",
    "ScoreFunction",
]
