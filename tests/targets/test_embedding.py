"""Features of target images: in order, and computed once for the same images and weights."""

from pathlib import Path

import pytest
import torch
from helpers import Beads, abacus, images
from torch import Tensor

from ms2.features.base import Blocks
from ms2.learning.data import TargetImages


@pytest.mark.parametrize("num_images", [7, 8])
def test_embedded_images_are_in_order(num_images: int) -> None:
    """In one process; tests/learning/test_processes.py has two."""
    data = images(abacus(), num_images, embedding_batch_size=3)
    embedded = data.embedded(Beads())
    counts = data.target.truth.counts(10).float()
    torch.testing.assert_close(embedded["classes"], counts)
    torch.testing.assert_close(embedded["count"], counts.sum(1, keepdim=True))


def test_only_the_first_batch_is_shown() -> None:
    shown: list[Tensor] = []
    images(abacus(), 7, embedding_batch_size=3).embedded(Beads(), on_first_batch=shown.append)
    assert [len(batch) for batch in shown] == [3] and shown[0].max() <= 1


# --- the cache ---


class Watched(Beads):
    """Counts the images that it embeds."""

    seen = 0

    def forward(self, images: Tensor) -> Blocks:
        self.seen += len(images)
        return super().forward(images)


def embedded(folder: Path, features: Watched, num_images: int = 40) -> tuple[Blocks, int]:
    """The target's features, and how many images were embedded for them."""
    data: TargetImages = images(abacus(), num_images)
    data.cache = folder / "cache"
    return data.embedded(features), features.seen


def test_target_features_are_computed_once(tmp_path: Path) -> None:
    first, seen = embedded(tmp_path, Watched())
    again, none = embedded(tmp_path, Watched())
    assert seen == len(first["count"]) == 40 and none == 0
    assert all(again[name].equal(first[name]) for name in first)


def test_other_weights_or_images_are_embedded_anew(tmp_path: Path) -> None:
    embedded(tmp_path, Watched())
    assert embedded(tmp_path, Watched(scale=14.0))[1] == 40
    assert embedded(tmp_path, Watched(), 30)[1] == 30
    assert len(list((tmp_path / "cache").glob("TargetFeatures-*.pt"))) == 3
