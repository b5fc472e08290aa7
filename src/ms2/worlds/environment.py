"""Attributes of a scene as a whole, such as light, that parameter priors sample uniformly."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ms2.scene.attributes import Attribute


@dataclass(frozen=True)
class SampledAttribute:
    """An attribute of the scene as a whole, with the range in which a parameter prior samples it.

    Attributes:
        attribute: Name and bounds.
        sampled: Lower and upper end of the prior's range.
    """

    attribute: Attribute
    sampled: tuple[float, float]


def sampled_ranges(attributes: Iterable[SampledAttribute]) -> dict[str, tuple[float, float]]:
    """Return the ranges of attributes by name."""
    return {one.attribute.name: one.sampled for one in attributes}


def sample_environment(
    ranges: Mapping[str, tuple[float, float]], num_scenes: int, generator: Generator
) -> dict[str, Float[Tensor, " b"]]:
    """Sample attributes of scenes, each uniformly within its range, in the order of ``ranges``."""
    low, width = _ranges(tuple(ranges.values()), generator.device)
    draw = torch.rand(len(ranges), num_scenes, generator=generator, device=generator.device)
    return dict(zip(ranges, (low + width * draw).unbind(), strict=True))


@lru_cache(maxsize=32)
def _ranges(ranges: tuple[tuple[float, float], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the lower ends and the widths of ranges, as columns."""
    low, high = torch.tensor(ranges).reshape(-1, 2).T[..., None].to(device)
    return low, high - low
