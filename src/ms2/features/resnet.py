"""The paper's extractor: a small residual network with presence heads (section 4.1)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.core.bounds import Dimension
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
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each position.

    Norms over the whole image would make the features of a position depend on how much there is elsewhere, and counts
    the less accurate the more an image differs from those of the prior. BatchNorm differs between training and
    evaluation on nearly empty canvases, enough to lose a third of the presence accuracy.
    """

    def __init__(self, channels: int) -> None:
        # on bare ground all channels are nearly equal; a smaller eps would amplify their differences
        super().__init__(channels, eps=1e-2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise the channels of each position; fast in the channels-last memory format."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1),
            ChannelLayerNorm(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
            ChannelLayerNorm(outputs),
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


def residual_trunk(channels: int, widths: tuple[int, int, int], strides: tuple[int, int, int]) -> nn.Sequential:
    """Build three residual blocks of two 3x3 convolutions each."""
    sizes = [channels, *widths]
    blocks = [ResidualBlock(i, o, s) for i, o, s in zip(sizes[:-1], sizes[1:], strides, strict=True)]
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


class ResNet(TrainedExtractor):
    """Three residual blocks, an embedding, and three fully connected layers to one presence logit per class.

    Block ``embedding`` is what the paper compares. With ``count_heads``, there is a one-hot count head per class
    and one for the number of all objects; their probabilities are the blocks ``count_<class>`` and ``count``.

    Args:
        channels: Channels of the images.
        classes: Names of the classes.
        widths: Output channels of the three blocks; the last is the dimension of the embedding.
        pool: Pooling of the last feature map over the image; with ``sum`` the embedding is linear in counts.
        count_heads: Whether to add count heads.
        max_count: Largest count that the count heads represent: one number for all heads, or one by class, for heads
            of these classes alone.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        widths: tuple[Dimension, Dimension, Dimension] = (16, 32, 64),
        pool: Literal["mean", "sum"] = "mean",
        count_heads: bool = False,
        max_count: Dimension | dict[str, Dimension] = 10,
    ) -> None:
        super().__init__()
        self.slots, self.classes, self.pool = CountSlots(classes), list(classes), pool
        self.trunk = residual_trunk(channels, widths, (2, 2, 2))
        self.max_counts: dict[str, int] = {}
        """Largest count of each count head, by the name of its block."""
        if count_heads and isinstance(max_count, int):
            self.max_counts = dict.fromkeys([f"count_{name}" for name in classes] + ["count"], max_count)
        elif count_heads and isinstance(max_count, dict):
            check_names(max_count, classes, "max_count")
            self.max_counts = {f"count_{name}": number for name, number in max_count.items()}
        outputs = len(classes) + sum(number + 1 for number in self.max_counts.values())
        self.register_buffer("mean", torch.zeros(widths[-1]))
        self.register_buffer("variance", torch.ones(widths[-1]))
        self.heads = nn.Sequential(
            nn.Linear(widths[-1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs)
        )

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Compute the embedding of images, of unit variance over the prior."""
        return self._embed(images, training=False)

    def _embed(self, images: Float[Tensor, "b c h w"], training: bool) -> Float[Tensor, "b d"]:
        """Pool and standardise the maps: H = d I presumes unit variance, and the heads learn well from it.

        Running statistics of a pooled embedding, unlike those of nearly empty maps, are accurate in evaluation.
        """
        maps = self.trunk(images.contiguous(memory_format=torch.channels_last))
        pooled = maps.mean((2, 3)) if self.pool == "mean" else maps.sum((2, 3))
        return F.batch_norm(pooled, self.mean, self.variance, training=training, momentum=0.05)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute block ``embedding``, and with count heads ``count_<class>`` and ``count``."""
        embedding = self.embed(images)
        counts = self._logits(embedding)[1] if self.max_counts else {}
        return {"embedding": embedding, **{name: logits.softmax(1) for name, logits in counts.items()}}

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the binary cross-entropy of presence plus the cross-entropy of counts."""
        counts = class_counts(labels, len(self.classes))
        presence, logits = self._logits(self._embed(images, training=True))
        loss = F.binary_cross_entropy_with_logits(presence, (counts > 0).float())
        for name in self.max_counts:
            loss = loss + F.cross_entropy(logits[name], self._number(counts, name)) / len(self.max_counts)
        return loss

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
        presence, logits = self._logits(self.embed(images))
        if not self.max_counts:
            return CountPrediction(presence > 0, None, None)
        number = {
            name: head.softmax(1) @ torch.arange(head.shape[1], device=head.device).float()
            for name, head in logits.items()
        }
        counts = torch.stack(
            [number.get(f"count_{c}", presence.new_full((len(presence),), torch.nan)) for c in self.classes], 1
        )
        return CountPrediction(presence > 0, counts, number.get("count", counts.sum(1)), counts)

    def _logits(self, embedding: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b c"], dict[str, Float[Tensor, "b _"]]]:
        """Compute the logits of presence, and of each count head by the name of its block."""
        presence, *counts = self.heads(embedding).split(
            [len(self.classes), *(n + 1 for n in self.max_counts.values())], 1
        )
        return presence, dict(zip(self.max_counts, counts, strict=True))
