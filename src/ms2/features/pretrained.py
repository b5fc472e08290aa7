"""Dense counting on a frozen pretrained backbone, for real images."""

import math
from collections.abc import Sequence
from itertools import count

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import Dimension, FiniteFloat, Fraction, NonNegativeFloat, PositiveFloat, Seed
from ms2.core.errors import UserError
from ms2.core.paths import Weights
from ms2.features.backbone import IMAGENET_MEAN, IMAGENET_STD, InputNormalisation, pretrained_weights, truncate_network
from ms2.features.base import Blocks
from ms2.features.dense import DenseCounts
from ms2.features.resnet import ChannelLayerNorm


class PretrainedCounts(DenseCounts):
    """`DenseCounts` on the feature maps of a frozen backbone, which transfer better to photographs.

    A network trained from scratch on rendered images depends on their texture, from which that of real images differs.
    The maps of a network trained on photographs are similar for both, and only a small head is trained here.

    Blocks: those of `DenseCounts`, and ``embedding``, the mean of the deepest maps over the image, of unit variance
    over images of the prior.

    Args:
        channels: Channels of the images.
        classes: Names of the classes.
        architecture: Name of a torchvision classification network.
        layers: Names of the layers to use, finest first; coarser maps are upsampled.
        weights: File of a state dict; ``imagenet`` for torchvision's own; null for random weights.
        mean: Per-channel mean, of pixels in [0, 1].
        std: Per-channel standard deviation.
        width: Channels of the head.
        min_visibility: Visible fraction of an object below which it is not labelled.
        background_weight: Weight of cells without an object in the loss, as in `DenseCounts`.
        max_count: Largest count that is represented, as in `DenseCounts`.
        count_kernel_std: Standard deviation of the Gaussian that spreads a count over the bins.
        count_threshold: By class, the density in a neighbourhood below which nothing is counted, as in `DenseCounts`.
        seed: Seed of the weights' random initialisation.
        min_height: Height of an object in pixels below which it is not labelled.
        count_weight: Weight of the error of the number of objects of each class of an image in the loss.
    """

    embedding_mean: Tensor
    embedding_variance: Tensor

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        architecture: str = "squeezenet1_1",
        layers: Sequence[str] = ("features.7", "features.12"),
        weights: Weights = "imagenet",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = IMAGENET_MEAN,
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD,
        width: Dimension = 96,
        min_visibility: Fraction = 0.1,
        background_weight: PositiveFloat = 0.2,
        max_count: Dimension | dict[str, Dimension] = 10,
        count_kernel_std: PositiveFloat = 0.4,
        count_threshold: dict[str, NonNegativeFloat] | None = None,
        seed: Seed = 0,
        min_height: NonNegativeFloat = 0.0,
        count_weight: NonNegativeFloat = 0.0,
    ) -> None:
        counting = (background_weight, max_count, None, count_kernel_std, min_visibility, 0, count_threshold)
        super().__init__(
            channels,
            classes,
            (1, 1, width),
            (1, 1, 1),
            *counting,
            min_height=min_height,
            count_weight=count_weight,
        )
        if not layers:
            raise UserError("layers must name at least one layer of the network, whose maps are used")
        self.layers = list(layers)
        self.network = truncate_network(architecture, self.layers, weights, seed).requires_grad_(False)
        self.pretrained = pretrained_weights(self.network, architecture, self.layers, weights)
        self.colours = InputNormalisation(mean, std)
        self.cell, self.margin = self._grid()
        with torch.no_grad():
            found = self.feature_maps(torch.zeros(1, 3, 256, 256))
        inputs = sum(m.shape[1] for m in found)
        self.trunk = nn.Sequential(
            ChannelLayerNorm(inputs), nn.Conv2d(inputs, width, 1), ChannelLayerNorm(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), ChannelLayerNorm(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), ChannelLayerNorm(width), nn.ReLU(),
        ).to(memory_format=torch.channels_last)  # fmt: skip
        self.register_buffer("embedding_mean", torch.zeros(found[-1].shape[1]))
        self.register_buffer("embedding_variance", torch.ones(found[-1].shape[1]))
        self.train()

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute block ``classes``, the count blocks and block ``embedding``."""
        maps = self.feature_maps(images)
        blocks = self.count_blocks(self.densities(self.head(self.trunk(self.concatenate_maps(maps)))).sum((2, 3)))
        embedding = F.batch_norm(maps[-1].mean((2, 3)), self.embedding_mean, self.embedding_variance)
        return {**blocks, "embedding": embedding}

    def _logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """Compute the logits of each cell; in training, update the running mean and variance of the embedding too."""
        maps = self.feature_maps(images)
        if self.training:
            F.batch_norm(
                maps[-1].detach().mean((2, 3)),
                self.embedding_mean,
                self.embedding_variance,
                training=True,
                momentum=0.02,
            )
        return self.head(self.trunk(self.concatenate_maps(maps)))

    def _grid(self) -> tuple[float, int]:
        """Measure the size of a cell in pixels, and the margin by which images are padded so that cells cover them.

        Networks without padding have a few cells fewer than the image's size over their stride. Without a margin, the
        cell of an object near an edge would not have the object in its receptive field.
        """
        side = 256

        def cells(margin: int) -> int:
            with torch.no_grad():
                return self.network(torch.zeros(1, 3, side + 2 * margin, side + 2 * margin))[self.layers[0]].shape[3]

        cell = 2.0 ** round(math.log2(side / cells(0)))
        return cell, next(margin for margin in count() if cells(margin) >= side / cell)

    def feature_maps(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b k i j"]]:
        """Compute the maps of the backbone's layers."""
        images = self.colours(F.pad(images, (self.margin,) * 4, mode="replicate"))
        found = self.network(images.contiguous(memory_format=torch.channels_last))
        return [found[layer] for layer in self.layers]

    def concatenate_maps(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b k i j"]:
        """Upsample all maps to the finest and concatenate them."""
        size = maps[0].shape[2:]
        return torch.cat([maps[0], *(F.interpolate(m, size, mode="bilinear") for m in maps[1:])], 1)

    def requires_grad_(self, requires_grad: bool = True) -> "PretrainedCounts":
        """Set ``requires_grad`` of the head; the backbone stays frozen."""
        super().requires_grad_(requires_grad)
        self.network.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> "PretrainedCounts":
        """Set the mode of the head; the backbone stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self
