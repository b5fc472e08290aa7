"""Exact features as plug-ins: scenes are rendered as tables of their objects, and features count what is in a table.

An image of a scene has a column for each object, whose two pixels are the object's class and its parent. So structure
is learned without the errors of an extractor, and without the time that images take: a run takes a minute. The settings
of such runs are in experiments/exact; with ``PYTHONPATH=experiments``, ms2 imports these classes by name, such as
scene_tables.SceneTable.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import Dimension, PositiveFloat, PositiveInt
from ms2.core.errors import UserError
from ms2.features.base import Blocks, FeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.objectives.kde import KDE
from ms2.priors.parameters import ParameterPrior
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch

MAX_BYTE = 255
"""Largest number that a pixel holds, as target images are kept as bytes."""


class NoParameters(ParameterPrior):
    """Leaves scenes without attributes: a table shows none."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        """Return the scenes as they are."""
        return scenes


class SceneTable(Renderer):
    """Renders a scene as a table: column i holds (class + 1) / 255 and (parent + 1) / 255 of object i, or zeros.

    Args:
        max_objects: Number of columns, less than 255: a pixel is kept as a byte.

    Raises:
        UserError: If ``max_objects`` is more than that, or a scene holds more objects than there are columns.
    """

    channels = 1
    attributes = ()

    def __init__(self, max_objects: Dimension) -> None:
        if max_objects >= MAX_BYTE:
            raise UserError(f"max_objects must be less than {MAX_BYTE}, not {max_objects}: a pixel holds one byte")
        self.max_objects, self.size = max_objects, (2, max_objects)

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b 1 2 w"]:
        """Write classes and parents into pixels."""
        n = self.max_objects
        if bool((scenes.classes[:, n:] >= 0).any()):
            most = int(scenes.mask.sum(1).max())
            raise UserError(f"a scene holds {most} objects, but its table only {n}: raise renderer.max_objects")
        table = torch.stack([scenes.classes, scenes.parents], 1)[:, None, :, :n] + 1
        return F.pad(table, (0, n - table.shape[3])).float() / MAX_BYTE

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Render the images of `render`, with the column of each object as its box."""
        image, seen, n = self.render(scenes), scenes.mask, scenes.classes.shape[1]
        left = torch.arange(n, device=seen.device).float().expand(len(scenes), n)
        top, right, bottom = torch.zeros_like(left), left + 1, torch.full_like(left, 2.0)
        boxes = torch.stack([left, top, right, bottom], 2) * seen[..., None]
        corners = torch.stack([left, top, right, top, right, bottom, left, bottom], 2).unflatten(2, (4, 2))
        column = torch.arange(self.max_objects, device=seen.device)
        instances = torch.where(image[:, :, 0] > 0, column, -1).expand(-1, 2, -1)
        return Rendering(
            image,
            scenes.classes,
            scenes.parents,
            boxes,
            corners * seen[..., None, None],
            boxes,
            instances,
            seen.float(),
        )


class ExactCounts(FeatureExtractor):
    """Counts the objects of a `SceneTable`: the blocks of `DenseCounts`, without errors.

    Block ``embedding`` is the number of objects in each slot, one vector that determines all of the structure that is
    counted. It stands for the embedding of an image-level network, which the paper compares as one block.

    Args:
        channels: Channels of the images.
        classes: Names of the classes.
        max_count: Largest number, or largest numbers by class, see `DenseCounts`.
        parents_per_class: Number of parents whose objects are counted separately, by class, see `DenseCounts`.
        count_kernel_std: Standard deviation of the Gaussian that spreads a count over the bins.
    """

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        max_count: Dimension | dict[str, Dimension] = 10,
        parents_per_class: dict[str, Dimension] | None = None,
        count_kernel_std: PositiveFloat = 0.4,
    ) -> None:
        super().__init__()
        self.counting = DenseCounts(
            channels,
            classes,
            widths=(1, 1, 1),  # of its network, which nothing uses
            max_count=max_count,
            parents_per_class=parents_per_class,
            count_kernel_std=count_kernel_std,
        )

    def numbers(self, images: Float[Tensor, "b 1 2 w"]) -> Int[Tensor, "b s"]:
        """Count the objects in each slot."""
        classes, parents = ((images * MAX_BYTE).round().long() - 1).squeeze(1).unbind(1)
        return self.counting.slots.counts(classes, parents)

    def forward(self, images: Float[Tensor, "b 1 2 w"]) -> Blocks:
        """Compute the blocks of exact numbers, and block ``embedding``."""
        numbers = self.numbers(images).float()
        return self.counting.count_blocks(numbers) | {"embedding": numbers}


class PooledKDE(KDE):
    """Estimates the target's density from the target samples of several steps, so that the two sides do not match.

    With ``num_steps`` of 1 it is `KDE`, whose two densities are estimated from equal numbers of samples. The paper does
    not say how many of each it takes.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number for all
            blocks, or one per block.
        blocks: Feature blocks to compare; by default those named in ``bandwidth``, or all.
        relative_bandwidth: Whether bandwidths are multiples of the mean feature variance of the target samples.
        leave_one_out: Whether to leave a sample's own kernel out of q~.
        num_steps: Number of last steps whose target samples are compared with.
    """

    def __init__(
        self,
        bandwidth: PositiveFloat | dict[str, PositiveFloat] = 1.0,
        blocks: Sequence[str] | None = None,
        relative_bandwidth: bool = False,
        leave_one_out: bool = True,
        num_steps: PositiveInt = 1,
    ) -> None:
        super().__init__(bandwidth, blocks, relative_bandwidth, leave_one_out)
        self.num_steps = num_steps
        self._real: dict[str, list[Float[Tensor, "l d"]]] = {}

    def compare(
        self,
        block: str,
        features: Float[Tensor, "b d"],
        generated: Float[Tensor, "m d"],
        own_index: Int[Tensor, " b"],
        real: Float[Tensor, "l d"],
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, ""]]:
        """Compute the scores from one block, with the target samples of the last steps."""
        if self.num_steps == 1:
            return super().compare(block, features, generated, own_index, real)
        # without the few images that settings are checked with before learning
        before = [some for some in self._real.get(block, []) if len(some) == len(real)]
        self._real[block] = [*before, real][-self.num_steps :]
        return super().compare(block, features, generated, own_index, torch.cat(self._real[block]))

    def block_score(
        self,
        generated_exponents: Float[Tensor, "b m"],
        real_exponents: Float[Tensor, "b l"],
        own_index: Int[Tensor, " b"],
        samples: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float | Float[Tensor, ""]],
    ) -> Float[Tensor, " b"]:
        """Compute the difference of the log-densities, each from all samples that there are."""
        if self.num_steps == 1:
            return super().block_score(generated_exponents, real_exponents, own_index, samples)
        size = generated_exponents.shape[1]
        if self.leave_one_out:
            generated_exponents = generated_exponents.scatter(1, own_index[:, None], -math.inf)
            size -= 1
        q = generated_exponents.logsumexp(1) - math.log(size)
        return q - real_exponents.logsumexp(1) + math.log(real_exponents.shape[1])
