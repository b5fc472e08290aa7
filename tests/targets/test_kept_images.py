"""Images that were read once are kept, and read no more."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import EXPECTED, abacus
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ms2.learning.data import TargetImages
from ms2.targets.base import Target
from ms2.targets.folder import Folder
from ms2.targets.synthetic import Synthetic
from ms2.worlds.multimnist.priors import UniformDigits

pytestmark = EXPECTED


class Counted(Target):
    """Eleven images, whose grey level is their index, and how often one was read."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 11

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        self.read += len(indices)
        return [torch.full((1, 4, 4), i, dtype=torch.uint8) for i in indices]

    def fingerprint(self) -> str:
        return "counted"


def levels(data: TargetImages, **part: int) -> list[list[int]]:
    """Grey level of each image by batch, which is its index."""
    batches = data.image_batches(**part)
    found = []
    for index, images in batches:
        assert torch.equal(index, images[:, 0, 0, 0].long()) and images.shape[1:] == (1, 4, 4)
        found.append(index.tolist())
    assert len(found) == len(batches)  # type: ignore[arg-type]
    return found


def test_images_are_read_once() -> None:
    target = Counted()
    data = TargetImages(target, embedding_batch_size=4)
    assert levels(data) == levels(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert target.read == 11
    assert levels(data, limit=3) == [[0, 3, 7]] and levels(data, rank=1, world_size=2) == [[1, 3, 5, 7], [9]]
    assert target.read == 11


def test_images_that_do_not_fit_are_not_kept() -> None:
    target = Counted()
    data = TargetImages(target, embedding_batch_size=4, keep_mib=0)
    target.kept.max_bytes = 11 * 16 - 1
    assert levels(data) == levels(data) and target.read == 22 and len(target.kept) == 0
    target.kept.max_bytes += 1
    assert levels(data) == levels(data) and target.read == 33 and len(target.kept) == 11


def test_each_process_keeps_its_own() -> None:
    target = Counted()
    data = TargetImages(target, embedding_batch_size=4)
    for _ in range(2):
        assert levels(data, rank=0, world_size=2) == [[0, 2, 4, 6], [8, 10]]
    assert target.read == len(target.kept) == 6


def test_images_are_decoded_once_for_check_and_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = abacus()
    for i in range(3):
        Image.new("L", world.renderer.size[::-1], 10 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    target = Folder(world, tmp_path, on_error="skip")
    data = TargetImages(target)
    with pytest.warns(UserWarning, match="1 of 3 images"):
        data.setup("fit")
    monkeypatch.setattr(Folder, "__getitems__", None)
    (batch,) = data.image_batches()
    assert batch[0].tolist() == [0, 1] and batch[1].flatten(1)[:, 0].tolist() == [0, 20]


def test_synthetic_images_are_rendered_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Synthetic(abacus(), UniformDigits(3), num_images=10)
    expected = target.preview(10)
    monkeypatch.setattr(Synthetic, "__getitems__", None)
    data = TargetImages(target, embedding_batch_size=4)
    for _ in range(2):
        assert torch.equal(torch.cat([images for _, images in data.image_batches()]), expected)
