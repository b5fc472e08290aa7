"""An extractor for real images: counts read off the maps of a network that was trained on photographs."""

import math
from collections.abc import Sequence
from itertools import count

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.features.backbone import IMAGENET_DEVIATION, IMAGENET_MEAN, Colours, network_up_to
from ms2.features.base import Blocks
from ms2.features.dense import DenseCounts
from ms2.features.resnet import PlaceNorm


class PretrainedCounts(DenseCounts):
    """`DenseCounts` on the maps of a frozen network: what it learns on rendered images holds better on photographs.

    A network trained from scratch on rendered images reads their texture, of which real ones have another. The maps of
    a network that was trained on photographs are much alike for both, and only a small head is trained here.

    Blocks: those of `DenseCounts`, and ``embedding``, the mean of the deepest maps over the image, of unit variance
    over the prior's images.

    Args:
        channels: Channels of an image.
        classes: Names of the classes.
        architecture: Name of a torchvision classification network.
        layers: Layers whose maps are read, by name, the finest first; those of coarser ones are enlarged to it.
        weights: File of a state dict; ``imagenet`` for torchvision's own; null for random ones.
        mean: What is taken off the colours, which lie in [0, 1].
        deviation: What they are divided by afterwards.
        width: Channels of the head.
        least_visible: Visible share of an object below which the head is not told of it.
        empty_weight: Weight of cells without an object in the loss, as in `DenseCounts`.
        max_count: Most objects that are told apart, as in `DenseCounts`.
        count_width: Standard deviation of a number's bump in the blocks of counts.
        count_threshold: By class, how much of an object must be expected at a place to be counted, as in `DenseCounts`.
        seed: Seed of random weights.
    """

    embedding_mean: Tensor
    embedding_variance: Tensor

    def __init__(
        self,
        channels: int,
        classes: Sequence[str],
        architecture: str = "squeezenet1_1",
        layers: Sequence[str] = ("features.7", "features.12"),
        weights: str | None = "imagenet",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        deviation: tuple[float, float, float] = IMAGENET_DEVIATION,
        width: int = 96,
        least_visible: float = 0.1,
        empty_weight: float = 0.2,
        max_count: int | dict[str, int] = 10,
        count_width: float = 0.4,
        count_threshold: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            channels,
            classes,
            (1, 1, width),
            (1, 1, 1),
            empty_weight,
            max_count,
            None,
            count_width,
            least_visible,
            0,
            count_threshold,
        )
        if not layers:
            raise UserError("layers must name at least one layer of the network, to read counts off its maps")
        self.layers = list(layers)
        self.network = network_up_to(architecture, self.layers, weights, seed).requires_grad_(False)
        self.colours = Colours(mean, deviation)
        self.cell, self.margin = self._grid()
        with torch.no_grad():
            found = self.maps(torch.zeros(1, 3, 256, 256))
        read = sum(m.shape[1] for m in found)
        self.trunk = nn.Sequential(
            PlaceNorm(read), nn.Conv2d(read, width, 1), PlaceNorm(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), PlaceNorm(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), PlaceNorm(width), nn.ReLU(),
        ).to(memory_format=torch.channels_last)  # fmt: skip
        self.register_buffer("embedding_mean", torch.zeros(found[-1].shape[1]))
        self.register_buffer("embedding_variance", torch.ones(found[-1].shape[1]))
        self.train()

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Blocks ``classes``, the counts named in ``max_count``, and ``embedding``."""
        maps = self.maps(images)
        blocks = self.blocks_of(self.masses(self.head(self.trunk(self.joined(maps)))).sum((2, 3)))
        embedding = F.batch_norm(maps[-1].mean((2, 3)), self.embedding_mean, self.embedding_variance)
        return {**blocks, "embedding": embedding}

    def _logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """What is said of each cell; in training the embedding's mean and variance are learned by the way."""
        maps = self.maps(images)
        if self.training:
            F.batch_norm(
                maps[-1].detach().mean((2, 3)),
                self.embedding_mean,
                self.embedding_variance,
                training=True,
                momentum=0.02,
            )
        return self.head(self.trunk(self.joined(maps)))

    def _grid(self) -> tuple[float, int]:
        """Side of a cell, and by how much images must be widened for the cells to cover them.

        Networks without padding have a few cells less than their stride says: without a margin what stands near an
        edge, where cars are nearest, would be asked of a cell that doesn't see it.
        """
        side = 256

        def cells(margin: int) -> int:
            with torch.no_grad():
                return self.network(torch.zeros(1, 3, side + 2 * margin, side + 2 * margin))[self.layers[0]].shape[3]

        cell = 2.0 ** round(math.log2(side / cells(0)))
        return cell, next(margin for margin in count() if cells(margin) >= side / cell)

    def maps(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b k i j"]]:
        """Outputs of the layers."""
        images = self.colours(F.pad(images, (self.margin,) * 4, mode="replicate"))
        found = self.network(images.contiguous(memory_format=torch.channels_last))
        return [found[layer] for layer in self.layers]

    def joined(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b k i j"]:
        """All of them at the finest one's places."""
        size = maps[0].shape[2:]
        return torch.cat([maps[0], *(F.interpolate(m, size, mode="bilinear") for m in maps[1:])], 1)

    def requires_grad_(self, requires_grad: bool = True) -> "PretrainedCounts":
        """Thaw or freeze the head; the network is frozen for good."""
        super().requires_grad_(requires_grad)
        self.network.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> "PretrainedCounts":
        """Train the head alone."""
        super().train(mode)
        self.network.eval()
        return self
