"""Images that are read in parts have the blocks of those read at once."""

import torch

from ms2.features.base import PART_ON_CPU, blocks_of
from ms2.features.dense import DenseCounts


def test_parts_have_the_blocks_of_the_whole() -> None:
    features = DenseCounts(1, ["a", "b"], widths=(4, 4, 4)).eval()
    images = torch.rand(2 * PART_ON_CPU // 64**2 + 3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    read = []
    features.register_forward_hook(lambda _, inputs, __: read.append(len(inputs[0])))
    with torch.no_grad():
        parts, whole = blocks_of(features, images), features(images)
    assert read == [256, 256, 3, len(images)]
    for name, block in whole.items():
        torch.testing.assert_close(parts[name], block)


def test_gradients_go_through_the_whole() -> None:
    features = DenseCounts(1, ["a"], widths=(4, 4, 4)).eval()
    images = torch.zeros(PART_ON_CPU // 64**2 + 1, 1, 64, 64, requires_grad=True)
    assert blocks_of(features, images)["classes"].requires_grad
