"""The interface of target images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ms2.core.registry import Plugin
from ms2.scene.batch import SceneBatch


class Target(Plugin, Dataset[UInt8[Tensor, "c h w"]], ABC, kind="targets"):
    """A set of target images, of the renderer's size and channels.

    One whose images can be had by number defines ``__len__`` and ``__getitems__``. One that can only be read from front
    to back, a stream, defines ``share``, ``first`` and ``size`` instead, and nothing asks it for the others.

    Attributes:
        truth: The structure of the scenes behind the images where it is known. For evaluation only: nothing that
            learns may look at it.
        annotated: Whether the truth is what somebody saw in the images, who can't have seen what is hidden.
        derivations: The same as derivations of the world's grammar.
    """

    truth: SceneBatch | None = None
    annotated: bool = False
    derivations: Int[Tensor, "n t"] | None = None

    def __len__(self) -> int:
        """Number of images."""
        raise TypeError(f"{type(self).__name__} is a stream, whose images are not counted before they are read")

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Several images at once."""
        raise TypeError(f"{type(self).__name__} is a stream, whose images can't be had by number")

    def __getitem__(self, index: int) -> UInt8[Tensor, "c h w"]:
        """One image."""
        return self.__getitems__([index])[0]

    @property
    def size(self) -> int | None:
        """Number of images; None where only reading all of them would tell."""
        return len(self)

    def share(self, rank: int = 0, world_size: int = 1, limit: int | None = None) -> Dataset[Any]:
        """One of ``world_size`` parts, which together hold each image once.

        Args:
            rank: Which part.
            world_size: Number of parts.
            limit: Only so many images, in all parts together, spread evenly; null for all.

        Returns:
            Pairs of a place and an image, by index or as a stream. The order of places is that of the images.
        """
        size = len(self)
        n = size if limit is None else min(limit, size)
        return _Part(
            self, range(rank, size, world_size) if n == size else [i * size // n for i in range(rank, n, world_size)]
        )

    def first(self, n: int) -> UInt8[Tensor, "m c h w"]:
        """The first n images, or all where there are fewer."""
        return torch.stack([self[i] for i in range(min(n, len(self)))])

    @abstractmethod
    def key(self) -> str:
        """A hash that changes when the images do, under which their features are kept."""

    def verify(self) -> None:
        """Raise what is wrong with the images now rather than in hour three."""


class _Part(Dataset[tuple[int, UInt8[Tensor, "c h w"]]]):
    """Images of a target with their places."""

    def __init__(self, target: Target, places: Sequence[int]) -> None:
        self.target, self.places = target, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[int, UInt8[Tensor, "c h w"]]]:
        places = [self.places[i] for i in indices]
        return list(zip(places, self.target.__getitems__(places), strict=True))
