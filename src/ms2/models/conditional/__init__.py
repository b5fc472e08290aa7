"""Scenes as they are asked for, "car == 5": conditions, and exact samples of what meets them."""

from ms2.models.conditional.condition import OPERATORS, Condition, ConditionError, satisfied
from ms2.models.conditional.reachability import Outlook, outlooks, possible_counts
from ms2.models.conditional.sampling import Conditioned, sample_given, sample_prior_given

__all__ = [
    "OPERATORS",
    "Condition",
    "ConditionError",
    "Conditioned",
    "Outlook",
    "outlooks",
    "possible_counts",
    "sample_given",
    "sample_prior_given",
    "satisfied",
]
