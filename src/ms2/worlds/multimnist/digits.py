"""Handwritten digit images: scikit-learn's or MNIST's."""

from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest

Source = Literal["sklearn", "mnist"]
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
        UserError: If there is no such source, or no MNIST under ``root``.
    """
    if source == "sklearn":
        images, labels = _sklearn()
    elif source == "mnist":
        images, labels = _mnist(root)
    else:
        raise UserError(f"there is no digit source {source!r}. {suggest(str(source), get_args(Source))}")
    images = F.interpolate(images[:, None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[
        :, 0
    ].clamp(0, 1)
    order = labels.argsort(stable=True)
    count = labels.bincount(minlength=10)
    return Digits(images[order], count.cumsum(0) - count, count)


def _sklearn() -> tuple[Tensor, Tensor]:
    from sklearn import datasets

    digits = datasets.load_digits()
    return torch.as_tensor(digits.images, dtype=torch.float32) / 16, torch.as_tensor(digits.target)


def _mnist(root: str | None) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import MNIST

    if root is None:
        raise UserError("the digit source 'mnist' needs the folder that holds MNIST/raw: set mnist_root")
    try:
        data = MNIST(root, train=True)
    except RuntimeError:
        raise UserError(
            f"there is no MNIST in {Path(root).absolute()}: {Path(root, 'MNIST', 'raw')} must hold "
            "train-images-idx3-ubyte and train-labels-idx1-ubyte. Let torchvision.datasets.MNIST(root, download=True) "
            "fetch it once, or use the digit source 'sklearn', which needs no download."
        ) from None
    return data.data.float() / 255, data.targets
