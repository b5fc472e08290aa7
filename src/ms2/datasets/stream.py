"""Labelled samples made while a model is trained on them, without files."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ms2.core.bounds import Fraction, NonNegativeInt, PositiveInt, Seed
from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.process_variables import process_number
from ms2.core.settings import Configured
from ms2.datasets.blocks import BLOCK_SIZE, sample_block
from ms2.datasets.labelled_set import Annotations, Example, NameIndex
from ms2.datasets.labels import (
    PIXEL_TOLERANCE,
    LabelArrays,
    LabelError,
    LabelFilter,
    categories_of,
    image_labels,
)
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import single_threaded
from ms2.metrics.average_precision import occlusion_level
from ms2.models.conditional.condition import Condition
from ms2.models.mixed_scene_model import MixedSceneModel
from ms2.models.opened_mixture import Opened
from ms2.models.scene_model import Sampler, SceneModel
from ms2.render.base import Rendering


class LabelledStream(Configured, IterableDataset[Example]):
    """Labelled samples that are rendered as they are asked for, equal to those of a data set of the same seed.

    Sample i depends on the seed and on i alone: it is image i of the data set that ``ms2 generate`` writes with this
    seed, as `GeneratedSet` reads it. Annotations have ``image_id``, the number i, too. Samples are made in blocks of
    32, of which each DataLoader worker of each process of a distributed run makes every n-th. Labels of its first block
    are checked against all pixels, those of others against the numbers of pixels.

    Args:
        source: The scene model to sample from, or one with the settings and weights that it was built from.
        seed: Seed of the samples.
        num_samples: Number of samples; None for no end.
        start: Number of the first sample, to go on where training was interrupted.
        classes: Labelled classes; by default the grammar's terminals and the scenery's classes.
        conditions: Conditions that all scenes meet, such as ``car == 5``.
        masks: Whether to return masks.
        amodal: Use boxes of whole objects instead of boxes of their visible part.
        min_visibility: Minimum visible fraction of a labelled object.
        min_pixels: Minimum number of visible pixels of a labelled object.
        device: Device for sampling and rendering, on which samples are returned.

    Attributes:
        categories: Names of the categories; the first has label 1.

    Raises:
        UserError: If there is no such class, or a condition can't be met.
    """

    def __init__(
        self,
        source: Opened | SceneModel | MixedSceneModel,
        seed: Seed = 0,
        num_samples: PositiveInt | None = None,
        start: NonNegativeInt = 0,
        classes: Sequence[str] | None = None,
        conditions: Sequence[str] = (),
        masks: bool = False,
        amodal: bool = False,
        min_visibility: Fraction = Plan.min_visibility,
        min_pixels: PositiveInt = Plan.min_pixels,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source, self.seed, self.device = source, seed, torch.device(device)
        self.start, self.end = start, None if num_samples is None else start + num_samples
        self.masks, self.amodal = masks, amodal
        self.conditions = [Condition.parse(text, self.model.world.grammar) for text in conditions]
        self.categories = categories_of(self.model.world, classes)
        self.filter = LabelFilter(self.categories, min_visibility, min_pixels)
        self._processes: Processes | None = None
        self._samplers()  # for the error, before training starts

    @property
    def model(self) -> SceneModel | MixedSceneModel:
        """The scene model that samples are drawn from."""
        return self.source if isinstance(self.source, SceneModel | MixedSceneModel) else self.source.model

    def __iter__(self) -> Iterator[Example]:
        """Iterate over this worker's share of the samples.

        Raises:
            UserError: If the renderer's labels are inconsistent, or a worker process is asked for samples on a GPU.
        """
        worker, processes = get_worker_info(), self._processes or _current_processes()
        if worker is not None and self.device.type != "cpu":
            raise UserError(
                f"samples on {self.device} are made in the process that trains: give DataLoader num_workers=0, or the "
                "stream device='cpu'"
            )
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first = self.start // BLOCK_SIZE + processes.rank * workers + number
        samplers = self._samplers()
        self.model.to(self.device)
        for block in count(first, processes.world_size * workers):
            if self.end is not None and block * BLOCK_SIZE >= self.end:
                return
            yield from self._examples(self._render(samplers, block), block * BLOCK_SIZE, check_all=block == first)

    def _samplers(self) -> list[Sampler]:
        return [component.sampler(conditions=self.conditions) for component in self.model.components]

    def _render(self, samplers: Sequence[Sampler], block: int) -> Rendering:
        with single_threaded(), torch.no_grad():
            scenes = sample_block(self.model, samplers, self.seed, block, self.device).scenes
            return self.model.world.renderer.render_labelled(scenes)

    def _examples(self, rendering: Rendering, first: int, check_all: bool) -> Iterator[Example]:
        """Yield the samples of a block that are among those asked for."""
        pixels = _rgb_bytes(rendering.image)
        try:
            found = block_annotations(
                rendering, self.model.world.classes, self.filter, self.masks, self.amodal, check_all
            )
        except LabelError as error:
            raise UserError(f"samples from {first} on have inconsistent labels. {error}") from error
        numbers = torch.arange(first, first + len(pixels), device=self.device)
        for number, image, annotations in zip(numbers, pixels, found, strict=True):
            if self.start <= first and (self.end is None or first < self.end):
                yield image, annotations | {"image_id": number}
            first += 1

    def __getstate__(self) -> dict[str, Any]:
        """Replace what was opened by its settings and weights, for a worker process that is started anew."""
        source = self.source
        recipe = None if isinstance(source, SceneModel | MixedSceneModel) else source.recipe
        # in a process that is started anew there is no process group
        return self.__dict__ | {"source": recipe or source, "_processes": _current_processes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build again what was opened."""
        self.__dict__.update(state)
        if not isinstance(self.source, SceneModel | MixedSceneModel):
            self.source = self.source()  # type: ignore[operator] # the recipe


def _current_processes() -> Processes:
    """Return the processes of the process group, or those that torchrun's variables number where there is none."""
    found = Processes.current()
    return found if found.world_size > 1 else Processes(process_number("RANK"), process_number("WORLD_SIZE", 1))


def block_annotations(
    rendering: Rendering,
    classes: Sequence[str],
    label_filter: LabelFilter,
    masks: bool = False,
    amodal: bool = False,
    check_all: bool = False,
) -> list[Annotations]:
    """Return the annotations of all images of a rendering, computed at once and without encoding masks.

    They equal those that `stack_annotations` makes of the labels of `image_labels`: visible boxes are the renderer's,
    and pixels are counted. `image_labels` itself checks images whose labels contradict each other or these numbers.

    Args:
        rendering: Images and labels.
        classes: Names of the world's classes.
        label_filter: Which objects are labelled.
        masks: Whether to return masks.
        amodal: Use boxes of whole objects instead of boxes of their visible part.
        check_all: Whether `image_labels` checks all images, pixel by pixel.

    Raises:
        LabelError: If the renderer's labels are inconsistent.
    """
    height, width = rendering.image.shape[-2:]
    device, limits = rendering.image.device, (width, height, width, height)
    arrays = LabelArrays.from_rendering(rendering)
    areas, names = _areas(arrays), NameIndex(label_filter.categories)
    numbers = np.array([0 if (i := names.get(name)) is None else i + 1 for name in classes] + [0])
    labels = numbers[arrays.classes]  # 0 for other classes, and for the class -1 of unused entries
    whole = arrays.boxes.clip(0, limits).astype(np.float64).round(3)
    for i in range(len(labels)) if check_all else _suspicious_images(arrays, labels, areas, whole):
        image_labels(arrays, i, classes, label_filter)
    areas, visibility = areas[:, : labels.shape[1]], arrays.visibility.astype(np.float64)
    seen = (labels > 0) & (areas > 0)
    kept = seen & (areas >= label_filter.min_pixels) & (visibility >= label_filter.min_visibility)
    regions = seen & ~kept
    boxes = visible = arrays.visible_boxes.astype(np.float64)
    if amodal:
        low, high = np.minimum(whole, visible)[..., :2], np.maximum(whole, visible)[..., 2:]
        boxes = np.concatenate([low, low + (high - low).round(3)], -1)
    truncation = np.zeros(labels.shape) if arrays.truncation is None else arrays.truncation.astype(np.float64).round(3)
    full = torch.from_numpy(boxes[kept]).float()
    flat = {
        "boxes": full.minimum(torch.tensor(limits)),
        "labels": torch.from_numpy(labels[kept]),
        "ignore": torch.zeros(len(full), dtype=torch.bool),
        "height": full[:, 3] - full[:, 1],
        "occlusion": occlusion_level(torch.from_numpy(visibility[kept].round(3)).float()),
        "truncation": torch.from_numpy(truncation[kept]).float(),
        "regions": torch.from_numpy(visible[regions]).float(),
        "region_labels": torch.from_numpy(labels[regions]),
    }
    counts = {False: kept.sum(1).tolist(), True: regions.sum(1).tolist()}
    parts = {name: values.to(device).split(counts["region" in name]) for name, values in flat.items()}
    parts["scale"] = torch.ones(len(labels), device=device).unbind()
    if masks:
        image, thing = (torch.from_numpy(found).to(device) for found in kept.nonzero())
        parts["masks"] = (rendering.instances[image] == thing[:, None, None]).to(torch.uint8).split(counts[False])
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _areas(arrays: LabelArrays) -> Int[np.ndarray, "b m"]:
    """Count the visible pixels of each object; m exceeds n if pixels show objects that there are not."""
    b, n = arrays.classes.shape
    shown = arrays.instances.reshape(-1)
    place = np.flatnonzero(shown >= 0)  # counting the background, most of the image, takes three times as long
    thing, image = shown[place], place // (shown.size // b)
    m = max(n, int(thing.max(initial=-1)) + 1)
    return np.bincount(image * m + thing, minlength=b * m).reshape(b, m)


def _suspicious_images(
    arrays: LabelArrays,
    labels: Int[np.ndarray, "b n"],
    areas: Int[np.ndarray, "b m"],
    whole: Float[np.ndarray, "b n 4"],
) -> list[int]:
    """List the images in which labels contradict each other or the number of pixels; comparisons fail for NaN."""
    n = labels.shape[1]
    area, visible, visibility = areas[:, :n], arrays.visible_boxes, arrays.visibility
    sides = visible[..., 2:] - visible[..., :2]
    low, high = np.minimum(whole, visible)[..., :2], np.maximum(whole, visible)[..., 2:]
    excess = np.abs(np.concatenate([low, high], -1) - whole)
    right = (visibility >= 0) & (visibility <= 1)
    right &= np.where(
        area > 0,
        (visibility > 0) & (area <= sides.prod(-1)) & (excess <= PIXEL_TOLERANCE).all(-1),
        (visible == 0).all(-1),
    )
    if arrays.truncation is not None:
        right &= (arrays.truncation >= 0) & (arrays.truncation <= 1)
    if arrays.boxes3d is not None:
        right &= np.isfinite(arrays.boxes3d).all(-1)
    wrong = (~right & (labels > 0)) | ((area > 0) & (arrays.classes < 0))
    found: list[int] = np.flatnonzero(wrong.any(1) | areas[:, n:].any(1)).tolist()
    return found


def _rgb_bytes(image: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Convert images as `ms2.core.images.to_pixels` does, on their device."""
    pixels = (image.detach().float() * 255).clamp_(0, 255).round_()
    pixels = pixels.to(torch.int16).to(torch.uint8)  # on a CPU a fifth of the time of a single step
    return pixels.expand(-1, 3, -1, -1).contiguous()
