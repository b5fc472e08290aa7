"""Images that are read once, and kept as bytes on a device for whatever reads them again."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

Batch = tuple[Int[Tensor, " b"], UInt8[Tensor, "b c h w"]]
"""Indices and images."""


class KeptImages:
    """Images by their index, as bytes on a device; none where all of them don't fit.

    Args:
        max_bytes: Size of the images that are kept, at most.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self._images: dict[int, UInt8[Tensor, "c h w"]] = {}

    def __len__(self) -> int:
        """Return the number of images that are kept."""
        return len(self._images)

    def has(self, indices: Sequence[int]) -> bool:
        """Return whether all of these images are kept."""
        return all(index in self._images for index in indices)

    def batch(self, indices: Sequence[int], device: torch.device) -> UInt8[Tensor, "b c h w"]:
        """Return images that are kept, on a device, where they are kept from then on."""
        images = torch.stack([self._images[index] for index in indices])
        if images.device == device:
            return images
        moved = images.to(device)
        self._images |= zip(indices, moved, strict=True)
        return moved

    def add(self, images: Iterable[tuple[int, UInt8[Tensor, "c h w"]]]) -> None:
        """Keep images by their indices."""
        self._images |= images


class KeptBatches:
    """Batches of images on a device, which are loaded when they are read for the first time, and then kept.

    Args:
        kept: The images that are kept.
        indices: Indices of the images, in order.
        batch_size: Images of a batch.
        load: Loads the batches.
        device: Where they are returned.
    """

    def __init__(
        self,
        kept: KeptImages,
        indices: Sequence[int],
        batch_size: int,
        load: Callable[[], Iterable[Batch]],
        device: torch.device,
    ) -> None:
        self.kept, self.indices, self.batch_size = kept, indices, batch_size
        self.load, self.device = load, device

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self.indices) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.kept.has(self.indices):
            for batch in torch.as_tensor(list(self.indices)).split(self.batch_size):
                yield batch, self.kept.batch(batch.tolist(), self.device)
            return
        for index, images in self.load():
            moved = images.to(self.device, non_blocking=True)
            if len(self.indices) * moved[0].nbytes <= self.kept.max_bytes:
                self.kept.add(zip(index.tolist(), moved, strict=True))
            yield index, moved
