"""Batches of labelled images for training, read once beside it and kept on its device."""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ms2.datasets.labelled_set import Annotations, Example, LabelledSet, LabelledSubset, collate
from ms2.datasets.rendered_set import RenderedSet
from ms2.datasets.stream import LabelledStream

MAX_CACHED_BYTES = 4 * 2**30
"""Memory of the images and annotations that are kept; on a GPU at most half of what is free."""
GPU_WORKERS = 4
"""Processes that read images while a GPU trains; on a CPU, which training itself keeps busy, there are none."""


class CachedBatches:
    """Batches of examples on a device; each example is read once, as long as memory suffices.

    Worker processes read some batches ahead, while the network is trained. They are asked only for what is not kept.

    Args:
        data: The set.
        batches: Indices of each batch.
        device: Device to move examples to.
        num_workers: Processes that read.
        max_bytes: Maximum memory of examples that are kept.
    """

    def __init__(
        self,
        data: LabelledSet,
        batches: Sampler[list[int]],
        device: torch.device,
        num_workers: int = 0,
        max_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        self.data, self.batches, self.device, self.num_workers = data, batches, device, num_workers
        self._free = max_bytes
        if device.type == "cuda":
            self._free = min(max_bytes, torch.cuda.mem_get_info(device)[0] // 2)
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[list[Tensor], list[Annotations]]]:
        planned = deque[list[int]]()

        def missing() -> Iterator[list[int]]:
            for batch in self.batches:
                planned.append(batch)
                yield [index for index in batch if index not in self._kept]

        read = DataLoader(
            _Numbered(self.data),
            batch_sampler=missing(),
            collate_fn=list,
            num_workers=self.num_workers,
        )
        for found in read:
            fresh = {index: _moved(example, self.device) for index, example in found}
            yield collate([self._kept[index] if index in self._kept else fresh[index] for index in planned.popleft()])
            for index, example in fresh.items():
                self._keep(index, example)

    def _keep(self, index: int, example: Example) -> None:
        image, annotations = example
        size = sum(tensor.nbytes for tensor in (image, *annotations.values()))
        if index not in self._kept and size <= self._free:
            self._kept[index] = example
            self._free -= size


class _Numbered(Dataset[tuple[int, Example]]):
    """Examples with their indices."""

    def __init__(self, data: LabelledSet) -> None:
        self.data = data

    def __getitem__(self, index: int) -> tuple[int, Example]:
        return index, self.data[index]


def _moved(example: Example, device: torch.device) -> Example:
    image, annotations = example
    return image.to(device), {name: value.to(device) for name, value in annotations.items()}


def default_workers(data: LabelledSet | LabelledStream, device: torch.device) -> int:
    """Return the number of processes that read a set while a device is busy; none for what that device renders."""
    while isinstance(data, LabelledSubset):
        data = data.whole
    rendered = isinstance(data, RenderedSet) or (isinstance(data, LabelledStream) and data.device.type != "cpu")
    return GPU_WORKERS if device.type == "cuda" and not rendered else 0
