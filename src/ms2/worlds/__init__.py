"""Domains: each folder holds one world's grammar, priors and renderer."""

from ms2.worlds import multimnist

__all__ = ["multimnist"]
