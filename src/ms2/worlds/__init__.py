"""Domains: each folder holds one world's grammar, priors and renderer."""

from ms2.worlds import aerial2d, driving3d, multimnist

__all__ = ["aerial2d", "driving3d", "multimnist"]
