"""Labelled sets rendered from scenes in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from ms2.core.bounds import Fraction, PositiveInt
from ms2.core.images import to_pixels
from ms2.datasets.formats.native import label_annotations
from ms2.datasets.labelled_set import Example, LabelledSet, choose_categories, stack_annotations
from ms2.datasets.labels import LabelArrays, LabelFilter, default_categories, image_labels
from ms2.datasets.plan import Plan
from ms2.datasets.records import ObjectLabel
from ms2.datasets.rendering import single_threaded
from ms2.scene.batch import SceneBatch
from ms2.world import World


class _Labelled(NamedTuple):
    """An image with the labels that its record in a data set would have."""

    image: UInt8[Tensor, "3 h w"]
    labels: list[ObjectLabel]
    hidden: list[ObjectLabel]


class RenderedSet(LabelledSet):
    """Scenes rendered with labels, equal to a data set on disk of the same scenes; images are kept in memory.

    Args:
        world: Renders the scenes.
        scenes: The scenes, in batches that are rendered together, all of the first one's length but the last.
        categories: Categories in the order of their labels; by default those that `default_categories` returns.
        masks: Whether to return masks.
        amodal: Use boxes of whole objects instead of boxes of their visible part.
        min_visibility: Minimum visible fraction of a labelled object; others are regions, which evaluation leaves out.
        min_pixels: Minimum number of visible pixels of a labelled object.
    """

    def __init__(
        self,
        world: World,
        scenes: Sequence[SceneBatch],
        categories: Sequence[str] | None = None,
        masks: bool = False,
        amodal: bool = False,
        min_visibility: Fraction = Plan.min_visibility,
        min_pixels: PositiveInt = Plan.min_pixels,
    ) -> None:
        self.world, self.scenes, self.masks, self.amodal = world, list(scenes), masks, amodal
        wanted = default_categories(world) if categories is None else categories
        self.categories = choose_categories(wanted, world.classes, "this world")
        self.filter = LabelFilter(self.categories, min_visibility, min_pixels)
        self._rendered: dict[int, list[_Labelled]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(map(len, self.scenes))

    def __getitem__(self, index: int) -> Example:
        """Return an image and its annotations."""
        if not 0 <= index < len(self):
            raise IndexError(f"there is no image {index} among {len(self)}")
        batch, place = divmod(index, len(self.scenes[0]))
        if batch not in self._rendered:
            self._rendered[batch] = self._render(self.scenes[batch])
        image, labels, hidden = self._rendered[batch][place]
        size = self.world.renderer.size if self.masks else None
        found = label_annotations(labels, hidden, self.categories, self.amodal, size)
        return image, stack_annotations(image, found, self.masks)

    def counts(self) -> Int[Tensor, "n c"]:
        """Count the objects of each category in each scene, also hidden ones."""
        columns = [self.world.classes.index(name) for name in self.categories]
        return torch.cat([scenes.counts(len(self.world.classes))[:, columns] for scenes in self.scenes])

    def _render(self, scenes: SceneBatch) -> list[_Labelled]:
        with single_threaded(), torch.no_grad():
            rendering = self.world.renderer.render_labelled(scenes)
        arrays = LabelArrays.from_rendering(rendering)
        images = [torch.from_numpy(to_pixels(image.expand(3, -1, -1))).permute(2, 0, 1) for image in rendering.image]
        return [
            _Labelled(image.contiguous(), *image_labels(arrays, i, self.world.classes, self.filter))
            for i, image in enumerate(images)
        ]
