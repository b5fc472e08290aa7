"""Handwritten digit images: scikit-learn's or MNIST's."""

import math
import struct
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.core.errors import UserError, suggest

Source = Literal["sklearn", "mnist"]
MNIST_FILES = {"train-images-idx3-ubyte": 3, "train-labels-idx1-ubyte": 1}
"""Files of MNIST's training digits in ``MNIST/raw``, with their numbers of dimensions."""
IDX_BYTES = 0x800
"""Magic number of files of bytes in MNIST's format, to which the number of dimensions is added."""
LICENCES: dict[Source, str] = {
    "sklearn": "Digits: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository, CC BY 4.0; as distributed with scikit-learn.",
    "mnist": "Digits: MNIST, Y. LeCun and C. Cortes, CC BY-SA 3.0.",
}
"""Licences of the images."""


class Digits(NamedTuple):
    """Square images of digits, sorted by class.

    Attributes:
        images: Intensities in [0, 1].
        first: Index of each class's first image.
        number: Number of each class's images.
    """

    images: Float[Tensor, "s p p"]
    first: Int[Tensor, "10"]
    number: Int[Tensor, "10"]


@lru_cache(maxsize=4)
def load_digits(source: Source, side: int, root: str | None = None) -> Digits:
    """Load digit images, resized to ``side`` pixels.

    Args:
        source: ``sklearn`` for the 1,797 digits of 8x8 pixels that are part of scikit-learn, ``mnist`` for the 60,000
            training digits of MNIST.
        side: Side of the images in pixels.
        root: Folder that holds ``MNIST/raw``; for ``mnist`` only.

    Raises:
        UserError: If there is no such source, no MNIST under ``root``, or none of some digit in it.
    """
    if source == "sklearn":
        images, labels = _sklearn()
    elif source == "mnist":
        images, labels = _mnist(root)
    else:
        raise UserError(f"there is no digit source {source!r}. {suggest(str(source), get_args(Source))}")
    _check_classes(labels, source if root is None else f"{Path(root, 'MNIST', 'raw')}")
    images = F.interpolate(images[:, None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[
        :, 0
    ].clamp(0, 1)
    order = labels.argsort(stable=True)
    count = labels.bincount(minlength=10)
    return Digits(images[order], count.cumsum(0) - count, count)


def _check_classes(labels: Int[Tensor, " n"], where: str) -> None:
    """Check that there is an image of each digit.

    Raises:
        UserError: If not; the message names the digits.
    """
    lacking = [str(digit) for digit in range(10) if not bool((labels == digit).any())]
    if lacking:
        raise UserError(
            f"{where} has no image of the digits {', '.join(lacking)}, which MultiMNIST draws: give files with all "
            "ten, or take the digit source 'sklearn'"
        )


def _sklearn() -> tuple[Tensor, Tensor]:
    from sklearn import datasets

    digits = datasets.load_digits()
    return torch.as_tensor(digits.images, dtype=torch.float32) / 16, torch.as_tensor(digits.target)


def _mnist(root: str | None) -> tuple[Tensor, Tensor]:
    """Read MNIST's training digits from the two files that hold them."""
    if root is None:
        raise UserError("the digit source 'mnist' needs the folder that holds MNIST/raw: set mnist_root")
    folder = Path(root).absolute() / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (folder / name).is_file()]
    if missing:
        there = [name for name in MNIST_FILES if name not in missing]
        packed = [f"{name}.gz" for name in missing if (folder / f"{name}.gz").is_file()]
        raise UserError(
            f"there is no MNIST in {Path(root).absolute()}: {folder} lacks {' and '.join(missing)}"
            + (f"; it has {there[0]}" if there else "")
            + (f". Unpack {' and '.join(packed)} with gunzip" if packed else "")
            + ". Let torchvision.datasets.MNIST(root, download=True) fetch it once, or use the digit source 'sklearn', "
            "which needs no download."
        )
    images, labels = (_read_idx(folder / name, dimensions) for name, dimensions in MNIST_FILES.items())
    if len(images) != len(labels):
        raise UserError(f"{folder} has {len(images)} images, but {len(labels)} labels: fetch MNIST again")
    if len(labels) and int(labels.max()) > 9:
        raise UserError(f"{folder / list(MNIST_FILES)[1]} has a label {int(labels.max())}, where digits are 0 to 9")
    return images.float() / 255, labels.long()


def _read_idx(path: Path, dimensions: int) -> UInt8[Tensor, "..."]:
    """Read a file in MNIST's format: a magic number, the sizes of the dimensions, and bytes.

    Raises:
        UserError: If it is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    start = 4 * (dimensions + 1)
    magic, *shape = struct.unpack(f">{dimensions + 1}I", content[:start].ljust(start, b"\0"))
    if magic != IDX_BYTES + dimensions:
        raise UserError(
            f"{path} is no file of MNIST with {dimensions} dimensions: it starts otherwise. Fetch it again."
        )
    if len(content) != start + math.prod(shape):
        raise UserError(
            f"{path} is cut or damaged: it has {len(content)} bytes, where its head of {' x '.join(map(str, shape))} "
            f"says {start + math.prod(shape)}. Fetch it again."
        )
    return torch.frombuffer(bytearray(content[start:]) or bytearray(1), dtype=torch.uint8)[: math.prod(shape)].view(
        shape
    )
