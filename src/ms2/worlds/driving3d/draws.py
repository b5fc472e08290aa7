"""Random draws of a layout: from a generator, or computed from a seed of each scene, so that they can be had again."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

NUM_SEEDS = 2**24
"""Number of different seeds; each is a multiple of 1 / NUM_SEEDS in [0, 1), which 32-bit floats hold exactly."""
UINT32 = 2**32 - 1
"""Mask of the lowest 32 bits."""


class Draws(ABC):
    """Source of uniform draws for a batch of scenes."""

    @abstractmethod
    def uniform(self, shape: Sequence[int], scene_dim: int) -> Float[Tensor, "..."]:
        """Draw numbers in [0, 1).

        Args:
            shape: Shape of the result.
            scene_dim: Its dimension along which the scenes lie.
        """

    @abstractmethod
    def exponential(self, shape: Sequence[int], scene_dim: int) -> Float[Tensor, "..."]:
        """Draw exponential variables of mean 1; arguments as of `uniform`."""


class GeneratorDraws(Draws):
    """Draws from a generator.

    Args:
        generator: The generator.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, shape: Sequence[int], scene_dim: int) -> Float[Tensor, "..."]:
        """Draw numbers in [0, 1)."""
        return torch.rand(tuple(shape), generator=self.generator, device=self.generator.device)

    def exponential(self, shape: Sequence[int], scene_dim: int) -> Float[Tensor, "..."]:
        """Draw exponential variables of mean 1."""
        return torch.empty(tuple(shape), device=self.generator.device).exponential_(generator=self.generator)


class SeededDraws(Draws):
    """Draws that are a hash of the scene's seed and a counter (Salmon et al. 2011, "as easy as 1, 2, 3").

    The same calls give a scene the same draws in any batch, on any device.

    Args:
        seeds: Seed of each scene, see `sample_seeds`.

    Example:
        >>> seeds = sample_seeds(3, generator(0, "seeds"))
        >>> torch.equal(SeededDraws(seeds).uniform((3, 2), 0)[1:], SeededDraws(seeds[1:]).uniform((2, 2), 0))
        True
    """

    def __init__(self, seeds: Float[Tensor, " b"]) -> None:
        self.seeds: Int[Tensor, " b"] = (seeds * NUM_SEEDS).long()
        self.calls = 0

    def uniform(self, shape: Sequence[int], scene_dim: int) -> Float[Tensor, "..."]:
        """Draw numbers in [0, 1)."""
        self.calls += 1
        b = len(self.seeds)
        others = [size for dim, size in enumerate(shape) if dim != scene_dim % len(shape)]
        counter = torch.arange(torch.Size(others).numel(), device=self.seeds.device)
        scene = _mixed(self.seeds * 0x9E3779B1 + self.calls * 0x85EBCA77)
        bits = _mixed(scene[:, None] + _mixed(counter * 0xC2B2AE3D + self.calls)[None])
        # 24 bits are what a 32-bit float in [0, 1) holds
        return ((bits >> 8).float() / 2**24).view(b, *others).movedim(0, scene_dim)

    def exponential(self, shape: Sequence[int], scene_dim: int) -> Float[Tensor, "..."]:
        """Draw exponential variables of mean 1."""
        return -torch.log1p(-self.uniform(shape, scene_dim))


def sample_seeds(number: int, generator: Generator) -> Float[Tensor, " b"]:
    """Sample seeds of scenes, in [0, 1)."""
    drawn = torch.randint(NUM_SEEDS, (number,), generator=generator, device=generator.device)
    return drawn.float() / NUM_SEEDS


def _mixed(value: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Hash the lowest 32 bits (Wellons 2018, "lowbias32")."""
    value = value & UINT32
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & UINT32
    value = ((value ^ (value >> 15)) * 0x846CA68B) & UINT32
    return value ^ (value >> 16)
