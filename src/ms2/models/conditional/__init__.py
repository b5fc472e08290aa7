"""Conditional sampling: conditions on object counts ("car == 5"), and exact samples of scenes that meet them."""

from ms2.models.conditional.condition import OPERATORS, Condition, ConditionError, satisfies
from ms2.models.conditional.reachability import Reachability, build_reachability, possible_counts
from ms2.models.conditional.sampling import ConditionalStructure, sample_conditional, sample_prior_conditional

__all__ = [
    "OPERATORS",
    "Condition",
    "ConditionError",
    "ConditionalStructure",
    "Reachability",
    "build_reachability",
    "possible_counts",
    "sample_conditional",
    "sample_prior_conditional",
    "satisfies",
]
