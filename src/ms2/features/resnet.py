"""The paper's extractor: a small residual network with heads for the whole image (sections 4.1 and 4.2)."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.core.bounds import Dimension
from ms2.core.errors import UserError
from ms2.features.base import (
    Blocks,
    CountPrediction,
    CountSlots,
    TrainedExtractor,
    check_counts,
    check_names,
    class_counts,
    count_classes,
)
from ms2.features.standardisation import BatchNorm, Standardisation
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each position.

    Norms over the whole image would make the features of a position depend on how much there is elsewhere, and counts
    the less accurate the more an image differs from those of the prior.
    """

    def __init__(self, channels: int) -> None:
        # on bare ground all channels are nearly equal; a smaller eps would amplify their differences
        super().__init__(channels, eps=1e-2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise the channels of each position; fast in the channels-last memory format."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


Norm = Callable[[int], nn.Module]
"""Makes a norm of maps of so many channels."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with a norm, beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm = ChannelLayerNorm) -> None:
        super().__init__()
        bias = norm is not BatchNorm  # which subtracts it
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias),
            norm(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias),
            norm(outputs),
        )
        self.shortcut, self.stride = nn.Conv2d(inputs, outputs, 1), stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """Apply the block."""
        # Not strided by the 1x1 convolution: its backward pass with few channels-last inputs writes past its workspace
        # on CPUs (oneDNN issue 6035). Nor by slicing, whose backward pass is not channels-last.
        coarse = F.max_pool2d(x, 1, self.stride) if self.stride > 1 else x
        # the body goes first: a sum is laid out as its first part, and a shortcut of one channel is not channels-last
        return F.relu(self.body(x) + self.shortcut(coarse))


class CoarseBlock(nn.Module):
    """Two 3x3 convolutions with one norm between them, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1),
            ChannelLayerNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply the block."""
        return F.relu(x + self.body(x))


def residual_trunk(
    channels: int, widths: tuple[int, int, int], strides: tuple[int, int, int], norm: Norm = ChannelLayerNorm
) -> nn.Sequential:
    """Build three residual blocks of two 3x3 convolutions each."""
    sizes = [channels, *widths]
    blocks = [ResidualBlock(i, o, s, norm) for i, o, s in zip(sizes[:-1], sizes[1:], strides, strict=True)]
    # channels-last convolutions are markedly faster on CPUs and no slower on GPUs
    return nn.Sequential(*blocks).to(memory_format=torch.channels_last)


class PadToCells(nn.Module):
    """Pads images on the right and below, so that their sides are multiples of a cell's."""

    def __init__(self, cell: int) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Pad images with zeros."""
        return F.pad(x, (0, -x.shape[3] % self.cell, 0, -x.shape[2] % self.cell))


def strided_trunk(channels: int, widths: tuple[int, int, int], strides: tuple[int, int, int]) -> nn.Sequential:
    """Build a convolution for each stride, the last only if it changes the map, then two residual blocks on the cells.

    Where the map is finest, as little as possible is done: there a residual trunk spends most of its time.
    """
    layers: list[nn.Module] = [PadToCells(math.prod(strides))]
    for number, (stride, outputs) in enumerate(zip(strides, widths, strict=True)):
        inputs = [channels, *widths][number]
        if stride == 1 and inputs == outputs:
            continue
        # Windows are centred at the outputs, which kernel - 2 padding = stride makes sure of. The first sees the most.
        kernel = 2 * stride if stride % 2 == 0 and number else 3 * stride
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride, (kernel - stride) // 2))
        if number:  # at the first, the finest, a norm costs as much as the convolution, and gains nothing
            layers.append(ChannelLayerNorm(outputs))
        layers.append(nn.ReLU(inplace=True))
    blocks = [CoarseBlock(widths[-1]) for _ in range(2)]
    return nn.Sequential(*layers, *blocks).to(memory_format=torch.channels_last)


class Pooling(nn.Module):
    """Pools maps over the image: their means, their maxima, or both one after the other."""

    def __init__(self, pool: Literal["mean", "max", "both"]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Float[Tensor, "b k i j"]) -> Float[Tensor, "b d"]:
        """Pool maps."""
        pooled = [maps.mean((2, 3))] if self.pool != "max" else []
        return torch.cat([*pooled, maps.amax((2, 3))] if self.pool != "mean" else pooled, 1)


class ResNet(TrainedExtractor):
    """Three residual blocks with batch norm, an embedding, and three fully connected layers to labels of the image.

    Labels are which classes are present, as in section 4.1, or numbers of objects as one-hot vectors, as in section
    4.2. Block ``embedding`` is what the paper compares. It has unit variance over the images of training, which
    H = d I presumes. With ``count_heads``, the probabilities of each class's numbers, and of the numbers of all
    objects, are the blocks ``count_<class>`` and ``count``.

    Norms use a batch's statistics in `loss` alone, whatever the mode, and else the running ones, so that features of
    an image never depend on others.

    The paper says nothing of strides, norms and pooling. With a cell as large as a digit, or the mean over all of an
    image that is almost empty, presence is hardly read, see docs/what_was_tried.md.

    Args:
        channels: Channels of the images.
        classes: Names of the classes.
        widths: Output channels of the three blocks; the last is the dimension of the embedding.
        strides: Strides of the three blocks. A cell, as wide as their product in pixels, should be smaller than an
            object.
        pool: Pooling of the last feature map over the image; with ``both`` the embedding has twice as many dimensions.
        presence_head: Whether to predict which classes are present.
        count_heads: Whether to predict numbers of objects.
        max_count: Largest count that the count heads represent: one number for all heads, or one by class, for heads
            of these classes alone.

    Raises:
        UserError: If there is no head, or a class is not among the classes.
    """

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        widths: tuple[Dimension, Dimension, Dimension] = (16, 32, 64),
        strides: tuple[Dimension, Dimension, Dimension] = (2, 2, 1),
        pool: Literal["mean", "max", "both"] = "max",
        presence_head: bool = True,
        count_heads: bool = False,
        max_count: Dimension | dict[str, Dimension] = 10,
    ) -> None:
        super().__init__()
        if not presence_head and not count_heads:
            raise UserError("the extractor has nothing to learn: set features.presence_head or features.count_heads")
        self.slots, self.classes, self.presence_head = CountSlots(classes), list(classes), presence_head
        self.max_counts: dict[str, int] = {}
        """Largest count of each count head, by the name of its block."""
        if count_heads and isinstance(max_count, int):
            self.max_counts = dict.fromkeys([f"count_{name}" for name in classes] + ["count"], max_count)
        elif count_heads and isinstance(max_count, dict):
            check_names(max_count, classes, "max_count")
            self.max_counts = {f"count_{name}": number for name, number in max_count.items()}
        dimension = 2 * widths[-1] if pool == "both" else widths[-1]
        trunk = residual_trunk(channels, widths, strides, BatchNorm)
        self.embedding = nn.Sequential(trunk, Pooling(pool), Standardisation(dimension)).eval()
        self.head_sizes = [len(classes) if presence_head else 0, *(number + 1 for number in self.max_counts.values())]
        self.heads = nn.Sequential(
            nn.Linear(dimension, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, sum(self.head_sizes))
        )

    def train(self, mode: bool = True) -> "ResNet":
        """Set the mode of the heads; the embedding stays in evaluation mode outside of `loss`."""
        super().train(mode)
        self.embedding.eval()
        return self

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Compute the embedding of images, of unit variance over the prior."""
        embedding: Tensor = self.embedding(images.contiguous(memory_format=torch.channels_last))
        return embedding

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute block ``embedding``, and with count heads ``count_<class>`` and ``count``."""
        embedding = self.embed(images)
        counts = self._logits(embedding)[1] if self.max_counts else {}
        return {"embedding": embedding, **{name: logits.softmax(1) for name, logits in counts.items()}}

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the binary cross-entropy of presence plus the cross-entropy of counts, as far as they are predicted.

        Normalise by the statistics of these images, and update the running ones.
        """
        counts = class_counts(labels, len(self.classes))
        self.embedding.train()
        presence, logits = self._logits(self.embed(images))
        self.embedding.eval()
        losses = [F.cross_entropy(logits[name], self._number(counts, name)) for name in self.max_counts]
        loss = torch.stack(losses).mean() if losses else presence.new_zeros(())
        if self.presence_head:
            loss = loss + F.binary_cross_entropy_with_logits(presence, (counts > 0).float())
        return loss

    @torch.no_grad()
    def calibrate(self, images: Iterator[Float[Tensor, "b c h w"]]) -> None:
        """Give the embedding unit variance over images, as it is in evaluation mode.

        In training, each batch normalises its maps by itself. Where images differ much in what they hold, maps of a few
        images vary less than those that running moments have normalised.
        """
        trunk, pooling, standardisation = self.embedding
        assert isinstance(standardisation, Standardisation)
        pooled = [pooling(trunk(some.contiguous(memory_format=torch.channels_last))) for some in images]
        standardisation.measure(torch.cat(pooled))

    def check_numbers(
        self, classes: Int[Tensor, "b n"], parents: Int[Tensor, "b n"], seen: Bool[Tensor, "b n"]
    ) -> None:
        """Check that the objects of scenes that are seen can all be counted."""
        self._check(count_classes(torch.where(seen, classes, -1), len(self.classes)))

    def _check(self, counts: Int[Tensor, "b c"]) -> None:
        for name, max_count in self.max_counts.items():
            objects = name.removeprefix("count_") if name != "count" else "objects"
            check_counts(self._number(counts, name)[:, None], max_count, objects)

    def _number(self, counts: Int[Tensor, "b c"], name: str) -> Int[Tensor, " b"]:
        """Return the number that a head predicts, by the name of its block."""
        return counts.sum(1) if name == "count" else counts[:, self.classes.index(name.removeprefix("count_"))]

    def predict_counts(self, images: Float[Tensor, "b c h w"]) -> CountPrediction:
        """Predict presence, and with count heads the expected counts: NaN for classes without a head."""
        logits, by_head = self._logits(self.embed(images))
        presence = logits > 0 if self.presence_head else None
        if not self.max_counts:
            return CountPrediction(presence, None, None)
        number = {
            name: head.softmax(1) @ torch.arange(head.shape[1], device=head.device).float()
            for name, head in by_head.items()
        }
        counts = torch.stack(
            [number.get(f"count_{c}", logits.new_full((len(logits),), torch.nan)) for c in self.classes], 1
        )
        return CountPrediction(presence, counts, number.get("count", counts.sum(1)), counts)

    def _logits(self, embedding: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b _"], dict[str, Float[Tensor, "b _"]]]:
        """Compute the logits of presence, and of each count head by the name of its block."""
        presence, *counts = self.heads(embedding).split(self.head_sizes, 1)
        return presence, dict(zip(self.max_counts, counts, strict=True))
