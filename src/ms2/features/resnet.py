"""The paper's extractor: a small residual network that tells which classes an image holds (section 4.1)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.features.base import Blocks, Reading, TrainedExtractor, check_counts, class_counts
from ms2.render import Rendering


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut, with GroupNorm.

    BatchNorm differs between training and evaluation on nearly empty canvases, enough to lose a third of the
    presence accuracy, hence the other norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1),
            nn.GroupNorm(groups, outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
            nn.GroupNorm(groups, outputs),
        )
        self.shortcut, self.stride = nn.Conv2d(inputs, outputs, 1), stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k i j"]:
        """Apply the block."""
        # Strided by slicing: the backward pass of a strided 1x1 convolution with few channels-last inputs writes past
        # its workspace on CPUs (oneDNN issue 6035).
        return F.relu(self.shortcut(x[:, :, :: self.stride, :: self.stride]) + self.body(x))


def residual_trunk(channels: int, widths: tuple[int, int, int], strides: tuple[int, int, int]) -> nn.Sequential:
    """Three residual blocks of two 3x3 convolutions each."""
    sizes = [channels, *widths]
    blocks = [ResidualBlock(i, o, s) for i, o, s in zip(sizes[:-1], sizes[1:], strides, strict=True)]
    # channels-last convolutions are markedly faster on CPUs and no slower on GPUs
    return nn.Sequential(*blocks).to(memory_format=torch.channels_last)


class ResNet(TrainedExtractor):
    """Three residual blocks, an embedding, and three fully connected layers to one presence logit per class.

    Block ``embedding`` is what the paper compares. With ``count_heads``, there is a one-hot count head per class
    and one for the number of all objects; their probabilities are the blocks ``count`` (all objects) and
    ``count_<class number>``.

    Args:
        channels: Channels of an image.
        num_classes: Number of classes, C.
        widths: Channels of the three blocks; the last is the embedding's dimension.
        pool: How the last feature map becomes the embedding: ``sum`` keeps counts linear in it.
        count_heads: Whether to learn counts too.
        max_count: Most objects that the count heads tell apart.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        channels: int,
        num_classes: int,
        widths: tuple[int, int, int] = (16, 32, 64),
        pool: Literal["mean", "sum"] = "mean",
        count_heads: bool = False,
        max_count: int = 10,
    ) -> None:
        super().__init__()
        self.num_classes, self.pool, self.max_count = num_classes, pool, max_count
        self.trunk = residual_trunk(channels, widths, (2, 2, 2))
        outputs = num_classes + (num_classes + 1) * (max_count + 1) * count_heads
        self.count_heads = count_heads
        self.register_buffer("mean", torch.zeros(widths[-1]))
        self.register_buffer("variance", torch.ones(widths[-1]))
        self.heads = nn.Sequential(
            nn.Linear(widths[-1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs)
        )

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The embedding of images, of unit variance over the prior."""
        return self._embed(images, training=False)

    def _embed(self, images: Float[Tensor, "b c h w"], training: bool) -> Float[Tensor, "b d"]:
        """Pooled maps, standardised: unit variance is what H = d I presumes, and what the heads can learn from.

        The running statistics of a pooled embedding, unlike those of nearly empty maps, serve evaluation well.
        """
        maps = self.trunk(images.contiguous(memory_format=torch.channels_last))
        pooled = maps.mean((2, 3)) if self.pool == "mean" else maps.sum((2, 3))
        return F.batch_norm(pooled, self.mean, self.variance, training=training, momentum=0.05)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Blocks ``embedding``, and with count heads ``count`` and ``count_<class number>``."""
        embedding = self.embed(images)
        blocks = {"embedding": embedding}
        if self.count_heads:
            counts = self._logits(embedding)[1].softmax(-1)
            blocks["count"] = counts[:, -1]
            blocks |= {f"count_{c}": counts[:, c] for c in range(self.num_classes)}
        return blocks

    def loss(self, images: Float[Tensor, "b c h w"], labels: Rendering) -> Float[Tensor, ""]:
        """Binary cross-entropy of presence, plus cross-entropy of counts."""
        counts = class_counts(labels, self.num_classes)
        presence, count_logits = self._logits(self._embed(images, training=True))
        loss = F.binary_cross_entropy_with_logits(presence, (counts > 0).float())
        if self.count_heads:
            counts = torch.cat([counts, counts.sum(1, keepdim=True)], 1)
            check_counts(counts, self.max_count, "objects")
            loss = loss + F.cross_entropy(count_logits.flatten(0, 1), counts.flatten())
        return loss

    def read(self, images: Float[Tensor, "b c h w"]) -> Reading:
        """Presence, and with count heads the expected counts."""
        presence, logits = self._logits(self.embed(images))
        if not self.count_heads:
            return Reading(presence > 0, None, None)
        expected = logits.softmax(-1) @ torch.arange(self.max_count + 1.0, device=logits.device)
        return Reading(presence > 0, expected[:, :-1], expected[:, -1])

    def _logits(self, embedding: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c1 k"]]:
        out = self.heads(embedding)
        presence, counts = out[:, : self.num_classes], out[:, self.num_classes :]
        return presence, counts.unflatten(1, (-1, self.max_count + 1)) if self.count_heads else counts[:, None]
