"""Dense prediction of object attributes, and of attributes of the scene as a whole."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ms2.core.bounds import Dimension, Fraction, NonNegativeFloat, PositiveFloat
from ms2.core.errors import UserError
from ms2.features.attribute_blocks import COLUMN, POSITION, ROW, AttributeBlocks, AttributeEncoding
from ms2.features.base import Blocks, SceneFeatureExtractor
from ms2.features.dense import Cells, DenseCounts, PyramidLevels
from ms2.features.gaps import gap_cdf_from_maps, soft_bins
from ms2.render.base import Rendering
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch

THUMBNAIL_SIZE = (4, 8)
"""Rows and columns of the image's means and deviations from which the environment is predicted."""
TYPICAL_MEAN, TYPICAL_STD = 0.4, 0.1
"""Mean and standard deviation of the pixels of a thumbnail's cell that are mapped to 0."""
MEAN_SCALE, STD_SCALE = 4, 8
"""Factors that bring these to unit size."""


class DenseAttributes(DenseCounts, SceneFeatureExtractor):
    """`DenseCounts` that also predicts object attributes in each cell, and environment attributes of each image.

    Not in the paper, nor in Meta-Sim, which match embeddings of whole images. Parameters of prior samples cost no more
    than their labels. With blocks of attributes, kernels compare just what is to be learned.

    Blocks, beside those of `DenseCounts`:

    - For each name in ``attribute_blocks``, a sum over objects. Each object adds ``bins`` soft step functions of its
      value, so that the sum says how many objects lie below each of ``bins`` thresholds. An angle adds its cosines and
      sines, up to ``harmonics``-fold; two attributes add all products of theirs. The distance of two scenes grows with
      the distance by which objects differ, however large, so that there is a gradient everywhere.
    - For each name in ``gap_blocks``, the fraction of gaps between an object and the next on its line that are smaller
      than each of ``bins`` distances.
    - ``environment``, the attributes of the scene as a whole.

    Args:
        channels: Channels of the images.
        classes: Names of the classes.
        attributes: Attributes of objects that are available as labels.
        environment: Attributes of scenes that are available as labels.
        attribute_blocks: By the name of a block, its attributes: one or two of the world's, or ``column`` and ``row``,
            which are the position on the image.
        gap_blocks: By the name of a block, the axis along which neighbours are ordered, ``column`` (from left to
            right) or ``row`` (downwards); and after it, if objects of one slot are on several lines, such as a road's
            lanes, the attribute that tells the lines apart.
        lateral_bins: Number of bins of that attribute: one for each line, such as 2 for a road's two lanes.
        block_classes: By block, the classes whose objects it holds; all by default.
        per_slot: Blocks that are repeated for each count slot: ``lanes_car_1`` for the cars on the first road.
        bins: Number of thresholds that attributes, and gaps between neighbours, are compared with.
        harmonics: Number of multiples of an angle whose cosine and sine encode it.
        widths: Output channels of the three residual blocks, or strided convolutions.
        strides: Strides of the three blocks; their product is the size of a cell in pixels.
        background_weight: Weight of cells without an object in the loss.
        max_count: Largest count that is represented, for all objects or by class.
        parents_per_class: Number of parents whose objects are counted separately, by class.
        count_kernel_std: Standard deviation of the Gaussian that spreads a count over the bins.
        min_visibility: Visible fraction of an object below which it is not labelled.
        pyramid_levels: Number of coarser feature maps that are added to the map.
        count_threshold: By class, the density in a neighbourhood below which nothing is counted.
        trunk: See `DenseCounts`.
        min_height: Height of an object in pixels below which it is not labelled.
        count_weight: See `DenseCounts`.

    Raises:
        UserError: If a setting is out of range, or names what does not exist.

    Example:
        >>> attributes = world.mutable_attributes
        >>> named = {"columns": ["column"], "y": ["y"]}
        >>> features = DenseAttributes(1, world.classes, attributes, attribute_blocks=named)
        >>> sorted(features(world.renderer.render(world.sample_prior(4, generator(0, "example")))))
        ['classes', 'columns', 'count', 'y']
    """

    is_used: Tensor

    def __init__(
        self,
        channels: Dimension,
        classes: Sequence[str],
        attributes: Sequence[Attribute] = (),
        environment: Sequence[Attribute] = (),
        attribute_blocks: dict[str, list[str]] | None = None,
        gap_blocks: dict[str, list[str]] | None = None,
        lateral_bins: Dimension = 2,
        block_classes: dict[str, list[str]] | None = None,
        per_slot: list[str] | None = None,
        bins: Dimension = 16,
        harmonics: Dimension = 2,
        widths: tuple[Dimension, Dimension, Dimension] = (16, 32, 64),
        strides: tuple[Dimension, Dimension, Dimension] = (2, 2, 1),
        background_weight: PositiveFloat = 0.2,
        max_count: Dimension | dict[str, Dimension] = 10,
        parents_per_class: dict[str, Dimension] | None = None,
        count_kernel_std: PositiveFloat = 0.4,
        min_visibility: Fraction = 0.0,
        pyramid_levels: PyramidLevels = 0,
        count_threshold: dict[str, NonNegativeFloat] | None = None,
        trunk: Literal["residual", "strided"] = "residual",
        min_height: NonNegativeFloat = 0.0,
        count_weight: NonNegativeFloat = 0.0,
    ) -> None:
        counting = (background_weight, max_count, parents_per_class, count_kernel_std, min_visibility, pyramid_levels)
        others = (count_threshold, trunk, 0.0, False, min_height, count_weight)  # no total_weight, nor half_cell_shift
        super().__init__(channels, classes, widths, strides, *counting, *others)
        self.encoding = AttributeEncoding(bins, harmonics, lateral_bins)
        self.blocks = AttributeBlocks(
            list(classes),
            self.slots,
            self.encoding,
            attributes,
            attribute_blocks or {},
            gap_blocks or {},
            block_classes or {},
            per_slot or [],
            ["classes", "environment", *self.counted],
        )
        self.predicted, self.environment = self.blocks.predicted, list(environment)
        width = widths[-1]
        self.register_buffer("is_used", self._is_used(), persistent=False)
        # no layers without outputs: weights without a gradient are an error in training on several devices
        self.tell: nn.Module = nn.Identity()
        self.judge: nn.Module = nn.Identity()
        if self.predicted:
            outputs = self.is_used.shape[1]
            self.tell = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, outputs, 1))
        if self.environment:
            inputs = 2 * width + 2 * channels * THUMBNAIL_SIZE[0] * THUMBNAIL_SIZE[1]
            outputs = sum(1 + a.periodic for a in self.environment)
            self.judge = nn.Sequential(
                nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs)
            )

    def _is_used(self) -> Bool[Tensor, "s1 n"]:
        """Return by slot which of the n predicted numbers of a cell some block uses; none of objects without a slot."""
        used = torch.zeros(len(self.slots) + 1, len(self.predicted), dtype=torch.bool)
        for name, slots in self.blocks.groups.values():
            for k, attribute in enumerate(self.predicted):
                used[slots, k] |= attribute in self.blocks.attributes_of[name]
        return used.repeat_interleave(
            torch.tensor([self.encoding.size(a) for a in self.predicted], dtype=torch.long), 1
        )

    # -- blocks of images ------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute the count blocks, the attribute blocks, the gap blocks and block ``environment``."""
        maps = self._maps(images)
        densities = self.densities(self.head(maps))
        blocks = self.count_blocks(densities.sum((2, 3)))
        values = self._values(maps)
        attribute_blocks, groups = self.blocks.attribute_blocks, self.blocks.groups
        bases = {a: self.encoding.basis(a, values[a.name]) for named in attribute_blocks.values() for a in named}
        for name, attributes in attribute_blocks.items():
            members = {block: slots for block, (setting, slots) in groups.items() if setting == name}
            density = torch.stack([_chosen(densities, slots).sum(1) for slots in members.values()], 1)
            blocks |= zip(members, _summed(density, {a: bases[a] for a in attributes}).unbind(1), strict=True)
        for block, (name, slots) in groups.items():
            if name in self.blocks.gap_blocks:
                lines = self._line_densities(_chosen(densities, slots), self.blocks.gap_blocks[name], values)
                blocks[block] = gap_cdf_from_maps(lines, self.encoding.bins)
        if self.environment:
            blocks["environment"] = self._predict_environment(images, maps)
        return blocks

    def _line_densities(
        self, density: Float[Tensor, "b s i j"], attributes: list[Attribute], values: dict[str, Tensor]
    ) -> Float[Tensor, "b m c"]:
        """Sum up the density of each slot and lateral bin at each position along the axis of a block of gaps."""
        axis, *others = attributes
        weight = torch.ones(1, 1, 1, 1, device=density.device)
        for attribute in others:
            value = values[attribute.name]
            # a position on the image is the same for a whole row or column of cells
            value = {COLUMN: value[None, None], ROW: value[None, :, None]}.get(attribute, value)
            weight = soft_bins(value, self.encoding.lateral_bins)
        across = 2 if axis == COLUMN else 3
        return (density[..., None] * weight[:, None]).sum(across).transpose(2, 3).flatten(1, 2)

    def _values(self, maps: Float[Tensor, "b k i j"]) -> dict[str, Tensor]:
        """Predict each attribute in each cell: as a fraction of its bounds, or as cosines and sines."""
        found: dict[str, Tensor] = {}
        for attribute, size in zip(POSITION, (maps.shape[3], maps.shape[2]), strict=True):
            found[attribute.name] = (torch.arange(size, device=maps.device) + 0.5) / size
        if self.predicted:
            outputs = self.tell(maps).unbind(1)
            for attribute in self.predicted:
                size = self.encoding.size(attribute)
                own, outputs = outputs[:size], outputs[size:]
                found[attribute.name] = torch.stack(own, -1) if attribute.periodic else (own[0] + 1) / 2
        return found

    def _predict_environment(
        self, images: Float[Tensor, "b c h w"], maps: Float[Tensor, "b k i j"]
    ) -> Float[Tensor, "b e"]:
        """Predict the environment attributes from the map's statistics, and those of the image's regions."""
        mean = F.adaptive_avg_pool2d(images, THUMBNAIL_SIZE)
        square = F.adaptive_avg_pool2d(images.square(), THUMBNAIL_SIZE)
        std = (square - mean.square()).clamp(min=1e-6).sqrt()
        means = MEAN_SCALE * (mean.flatten(1) - TYPICAL_MEAN)
        stds = STD_SCALE * (std.flatten(1) - TYPICAL_STD)
        return self.judge(torch.cat([maps.mean((2, 3)), maps.flatten(2).std(2), means, stds], 1))

    # -- blocks of scenes ------------------------------------------------------------------------------

    def ground_truth(self, scenes: SceneBatch, centres: Float[Tensor, "b n 2"] | None) -> Blocks:
        """Compute the true attribute blocks, gap blocks and block ``environment``; hidden objects count as well.

        Blocks that use positions on the image are missing if ``centres`` is None.
        """
        blocks = self.blocks.from_scenes(scenes, centres)
        if self.environment:
            blocks["environment"] = self._true_environment(scenes)
        return blocks

    def _true_environment(self, scenes: SceneBatch) -> Float[Tensor, "b e"]:
        """Encode the environment attributes of scenes."""
        return torch.stack([v for a in self.environment for v in a.encode(scenes.environment[a.name])], 1)

    # -- training --------------------------------------------------------------------------------------

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """Compute the loss of `DenseCounts` plus the mean squared errors of attributes.

        Raises:
            UserError: If attributes are predicted and ``scenes`` is None.
        """
        maps = self._maps(images)
        cells = self._cells(labels, *maps.shape[2:])
        loss = self._count_loss(self.head(maps), cells)
        if not self.predicted and not self.environment:
            return loss
        if scenes is None:
            raise UserError("DenseAttributes predicts parameters, so its loss needs the scenes that images show")
        if self.predicted:
            loss = loss + self._error(maps, cells, scenes)
        if self.environment:
            loss = loss + F.mse_loss(self._predict_environment(images, maps), self._true_environment(scenes))
        return loss

    def _error(self, maps: Float[Tensor, "b k i j"], cells: Cells, scenes: SceneBatch) -> Float[Tensor, ""]:
        """Compute the mean squared error of attributes in the cells around objects, with bilinear weights.

        An attribute counts only for objects in whose blocks it is: for others its value may lie far beyond the bounds,
        or have no meaning.
        """
        slots, places, bilinear = cells
        predicted = self.tell(maps).permute(0, 2, 3, 1).flatten(1, 2)  # [b ij k]
        index = places.view(len(places), -1, 1).expand(-1, -1, predicted.shape[2])
        found = predicted.gather(1, index).unflatten(1, places.shape[1:])  # [b n 4 k]
        true = torch.stack([v for a in self.predicted for v in self.encoding.targets(a, scenes.value(a))], 2)
        true = true.nan_to_num(0.0, 0.0, 0.0)  # padding may hold anything: NaN times a weight of zero is NaN
        error = F.mse_loss(found, true.unsqueeze(2).expand_as(found), reduction="none")
        weight = self.is_used[slots] * bilinear
        weight = weight / weight.mean((0, 1, 2)).clamp(min=1 / max(1, places.numel()))
        return (error * weight).mean()


def _chosen(densities: Float[Tensor, "b s i j"], slots: list[int]) -> Float[Tensor, "b m i j"]:
    """Select slots without an index, which would have to be copied to the device."""
    if slots == list(range(slots[0], slots[-1] + 1)):
        return densities[:, slots[0] : slots[-1] + 1]
    return torch.stack([densities[:, s] for s in slots], 1)


def _summed(density: Float[Tensor, "b s i j"], bases: dict[Attribute, Tensor]) -> Float[Tensor, "b s f"]:
    """Sum up over cells their density times the products of their bases."""
    axes = {COLUMN: "j", ROW: "i"}
    # predicted attributes are summed up first: the bases of positions are the same in each row or column
    order = sorted(bases, key=lambda attribute: attribute in axes)
    letters = dict(zip(bases, "fg", strict=False))
    terms = [axes.get(attribute, "bij") + letters[attribute] for attribute in order]
    result = "bs" + "".join(letters.values())
    return torch.einsum(f"bsij,{','.join(terms)}->{result}", density, *(bases[a] for a in order)).flatten(2)
