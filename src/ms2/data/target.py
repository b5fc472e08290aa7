"""Target images: what the generated ones should look like, from a folder or from a hidden distribution."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ms2.data.images import Fit, ImageFolder, OnError
from ms2.priors import ParameterPrior, StructurePrior
from ms2.registry import Plugin, UserError, fingerprint
from ms2.scene import SceneBatch, scenes_of
from ms2.seeding import generator
from ms2.world import World


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


class Folder(Target):
    """Any folder of images, searched recursively.

    Args:
        world: Whose renderer sets the images' size and channels.
        root: The folder.
        fit: How images of another shape are brought to the renderer's: cut, padded with black, or stretched.
        on_error: What to do with files that can't be read.
        limit: Use the first so many images only.
    """

    def __init__(
        self,
        world: World,
        root: Path | str,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: int | None = None,
    ) -> None:
        channels: Literal[1, 3] = 1 if world.renderer.channels == 1 else 3
        self.images = ImageFolder(root, world.renderer.size, channels, fit, on_error, limit)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Several images, read from disk."""
        return [self.images[i] for i in indices]

    def key(self) -> str:
        """Hash of names, sizes and times of the files."""
        return self.images.fingerprint()

    def verify(self) -> None:
        """Decode every file once."""
        self.images.verify()


class Synthetic(Target):
    """Images rendered from a hidden distribution of structure and parameters, which learning is to recover.

    Args:
        world: Whose grammar and renderer make the images.
        prior: The hidden distribution of structure.
        parameters: The hidden distribution of parameters; the world's by default.
        num_images: Number of images.
        seed: Seed of the scenes.
    """

    def __init__(
        self,
        world: World,
        prior: StructurePrior,
        parameters: ParameterPrior | None = None,
        num_images: int = 4000,
        seed: int = 0,
    ) -> None:
        if num_images < 2:
            raise UserError(f"a target needs at least 2 images, not {num_images}")
        self.world, self.num_images = world, num_images
        self.hidden = World(world.grammar, prior, parameters or world.parameters, world.renderer)
        self.seed = seed

    @cached_property
    def _drawn(self) -> tuple[Int[Tensor, "n t"], SceneBatch]:
        """Derivations, and the scenes to be rendered."""
        draw = generator(self.seed, "target")
        rules = self.hidden.prior.sample(self.hidden.grammar, self.num_images, draw)
        return rules, self.hidden.scenes(rules, draw)

    @property
    def scenes(self) -> SceneBatch:
        """The images' scenes with their parameters, for evaluation only."""
        return self._drawn[1]

    @property
    def derivations(self) -> Int[Tensor, "n t"]:  # type: ignore[override]
        """The derivations of the images' scenes, for evaluation only."""
        return self._drawn[0]

    @cached_property
    def truth(self) -> SceneBatch:  # type: ignore[override]
        """The structure of the images' scenes, for evaluation only."""
        return scenes_of(self.hidden.grammar, self.derivations)

    def __len__(self) -> int:
        """Number of images."""
        return self.num_images

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Several images, rendered together."""
        return list(_to_bytes(self.world.renderer.render(self._drawn[1][torch.as_tensor(indices)])))

    def key(self) -> str:
        """Hash of the settings."""
        return fingerprint(self)


def _to_bytes(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    return (images * 255).round().to(torch.uint8)
