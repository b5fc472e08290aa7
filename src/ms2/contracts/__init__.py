"""What every world must keep to: valid derivations, attributes within bounds, sound images and labels."""

from ms2.contracts.base import Contract, Finding, Outcome, check
from ms2.contracts.checks import CONTRACTS, check_first_batch, check_first_scenes, check_world

__all__ = [
    "CONTRACTS",
    "Contract",
    "Finding",
    "Outcome",
    "check",
    "check_first_batch",
    "check_first_scenes",
    "check_world",
]
