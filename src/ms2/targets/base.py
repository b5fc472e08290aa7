"""Interface of target images."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ms2.core.errors import UserError
from ms2.core.registry import Plugin
from ms2.datasets.labelled_set import LabelledSet
from ms2.scene.batch import SceneBatch
from ms2.targets.kept_images import KeptBatches, KeptImages
from ms2.world import World

ImageBatches = Iterable[tuple[Int[Tensor, " b"], UInt8[Tensor, "b c h w"]]]
"""Indices and images, batch by batch."""


class Target(Plugin, Dataset[UInt8[Tensor, "c h w"]], ABC, kind="targets"):
    """A set of target images, of the renderer's size and channels.

    A map-style target defines ``__len__`` and ``__getitems__``. A stream, which can only be read from beginning to end,
    defines ``partition``, ``preview`` and ``num_images`` instead.

    Attributes:
        truth: Structure of the scenes in the images, if known. For evaluation only: learning must not read it.
        scenes: The truth with the scenes' parameters, if known.
        hidden: The world that ``scenes`` belong to, if known.
        annotated: Whether the truth comes from annotations of the images, which leave out what is hidden. It is read
            only if labels are to be evaluated, see `truth_if_read`.
        derivations: The truth as derivations of the world's grammar, if known.
        files: The images' files, of a target that reads each image from its own.
        root: The folder, of a target in KITTI's layout.
        types: The class of each of KITTI's types, of a target in KITTI's layout.
    """

    truth: SceneBatch | None = None
    scenes: SceneBatch | None = None
    hidden: World | None = None
    annotated: bool = False
    derivations: Int[Tensor, "n t"] | None = None
    files: Sequence[Path] = ()
    root: Path | None = None
    types: Mapping[str, str] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        raise TypeError(f"{type(self).__name__} is a stream: its number of images is unknown until all are read")

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Return several images."""
        raise TypeError(f"{type(self).__name__} is a stream: its images have no index")

    def __getitem__(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Return one image."""
        return self.__getitems__([index])[0]

    @property
    def num_images(self) -> int | None:
        """Number of images; None if unknown until all are read."""
        return len(self)

    def partition(self, rank: int = 0, world_size: int = 1, limit: int | None = None) -> Dataset[Any]:
        """Return a process's partition of the images; the partitions of all processes hold each image once.

        Args:
            rank: Number of the process.
            world_size: Number of processes.
            limit: Number of images in all partitions together, spread evenly; None for all.

        Returns:
            Pairs of an index and an image, map-style or as a stream. Indices increase in the order of the images.
        """
        return _Partition(self, self.partition_indices(rank, world_size, limit))

    def partition_indices(self, rank: int = 0, world_size: int = 1, limit: int | None = None) -> Sequence[int]:
        """Return the indices of a `partition`'s images, of a target whose images have any."""
        size = len(self)
        n = size if limit is None else min(limit, size)
        return range(rank, size, world_size) if n == size else [i * size // n for i in range(rank, n, world_size)]

    def truth_if_read(self, evaluate_labels: bool) -> SceneBatch | None:
        """Return the truth; None if it is unknown, or stands in annotations that are not to be read.

        Args:
            evaluate_labels: Whether annotations may be read.

        Raises:
            UserError: If annotations are to be read, and can't be, or there are none.
        """
        if self.annotated and not evaluate_labels:
            return None
        if evaluate_labels and self.truth is None:
            name = type(self).__name__
            raise UserError(f"evaluate_labels is true, but the target's images ({name}) have no labels: leave it out")
        return self.truth

    @cached_property
    def kept(self) -> KeptImages:
        """Images that have been read, so far as ``kept.max_bytes`` allows: none by default."""
        return KeptImages()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the images that are kept."""
        return {name: value for name, value in vars(self).items() if name != "kept"}

    def batches(
        self,
        batch_size: int,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
    ) -> ImageBatches:
        """Read a process's `partition` of the images in batches, on a device.

        Images that have an index are `kept` there for whatever reads them again, if they fit.

        Args:
            batch_size: Images of a batch.
            device: Where images are returned.
            num_workers: Worker processes that read images.
            rank: Number of the process.
            world_size: Number of processes.
            limit: Number of images in all partitions together; None for all.

        Returns:
            Pairs of indices and images. Several workers read a stream in another order.
        """
        partition, device = self.partition(rank, world_size, limit), torch.device(device)
        loader = DataLoader(partition, batch_size, num_workers=num_workers, pin_memory=device.type == "cuda")
        if not isinstance(partition, _Partition):
            return loader
        return KeptBatches(self.kept, partition.indices, batch_size, lambda: loader, device)

    def preview(self, n: int) -> UInt8[Tensor, "m c h w"]:
        """Return the first n images, or all if there are fewer."""
        return torch.stack(self.__getitems__(range(min(n, len(self)))))

    def labelled_set(
        self, categories: Sequence[str] | None = None, num_held_out: int | None = None
    ) -> LabelledSet | None:
        """Return labelled images of the target's distribution; None if it has no labels.

        For evaluation, and for rewards that are computed from labels: distribution matching must not read it.

        Args:
            categories: Categories in the order of their labels; by default all that the target and the world's grammar
                share.
            num_held_out: Return images that are not among the target's own: this number where they are rendered, all
                that there are to test on where they are given. By default the target's own.

        Raises:
            UserError: If the target has no labels of a category, or no images that are held out.
        """
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Compute a hash that changes when the images do, as a cache key of their features."""

    def verify(self) -> None:
        """Check the images before training.

        Raises:
            UserError: If one cannot be used.
        """


class _Partition(Dataset[tuple[int, UInt8[Tensor, "c h w"]]]):
    """Some of a target's images with their indices."""

    def __init__(self, target: Target, indices: Sequence[int]) -> None:
        self.target, self.indices = target, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[int, UInt8[Tensor, "c h w"]]]:
        own = [self.indices[i] for i in indices]
        return list(zip(own, self.target.__getitems__(own), strict=True))
