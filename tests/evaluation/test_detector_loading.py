"""Labelled images are read once, in the order of the batches, as long as memory suffices."""

import pytest
import torch

from ms2.datasets.labelled_set import Example, LabelledSet
from ms2.evaluation.detectors.loading import CachedBatches
from ms2.evaluation.detectors.training import ShuffledBatches

EXAMPLE_BYTES = 3 * 4 * 4 + 8


class Numbers(LabelledSet):
    """Images as light as their number."""

    categories = ("number",)

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Example:
        self.read.append(index)
        return torch.full((3, 4, 4), index, dtype=torch.uint8), {"labels": torch.tensor([index])}


def load(data: Numbers, num_workers: int = 0, max_bytes: int = 10**6) -> list[list[int]]:
    batches = CachedBatches(data, ShuffledBatches(5, 2, 10, seed=1), torch.device("cpu"), num_workers, max_bytes)
    assert len(batches) == 10
    found = list(batches)
    for images, annotations in found:
        assert [int(one["labels"]) for one in annotations] == [int(image[0, 0, 0]) for image in images]
    return [[int(one["labels"]) for one in annotations] for _, annotations in found]


def test_each_image_is_read_once_for_the_same_batches() -> None:
    data = Numbers()
    assert load(data) == list(ShuffledBatches(5, 2, 10, seed=1))
    assert sorted(data.read) == list(range(5))


@pytest.mark.parametrize(("kept", "times"), [(0, 20), (2, 14), (5, 5)])
def test_what_memory_does_not_hold_is_read_again(kept: int, times: int) -> None:
    data = Numbers()
    assert load(data, max_bytes=kept * EXAMPLE_BYTES) == list(ShuffledBatches(5, 2, 10, seed=1))
    assert len(data.read) == times


def test_processes_that_read_ahead_change_no_batch() -> None:
    assert load(Numbers(), num_workers=2) == list(ShuffledBatches(5, 2, 10, seed=1))
