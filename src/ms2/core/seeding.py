"""Random generators that depend on names and numbers, never on what ran before."""

import hashlib

import torch


def generator(*keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose seed is a hash of ``keys``.

    The same keys give the same numbers in every process and after every restart, and different keys give
    independent ones: ``generator(seed, "training", step, rank)`` needs no state in a checkpoint.
    """
    digest = hashlib.blake2b("\x1f".join(map(repr, keys)).encode(), digest_size=8).digest()
    # manual_seed takes 64 bits; one is given up so that the number is never negative
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "big") >> 1)
