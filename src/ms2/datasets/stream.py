"""Labelled samples made while a model is trained on them, without files."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ms2.core.bounds import Fraction, NonNegativeInt, PositiveInt, Seed
from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.process_variables import process_number
from ms2.core.settings import Configured
from ms2.datasets.blocks import BLOCK_SIZE, sample_block
from ms2.datasets.formats.native import label_annotations
from ms2.datasets.labelled_set import Example, stack_annotations
from ms2.datasets.labels import LabelArrays, LabelError, LabelFilter, categories_of, image_labels
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import single_threaded
from ms2.models.conditional.condition import Condition
from ms2.models.mixed_scene_model import MixedSceneModel
from ms2.models.opened_mixture import Opened
from ms2.models.scene_model import Sampler, SceneModel
from ms2.render.base import Rendering


class LabelledStream(Configured, IterableDataset[Example]):
    """Labelled samples that are rendered as they are asked for, equal to those of a data set of the same seed.

    Sample i depends on the seed and on i alone: it is image i of the data set that ``ms2 generate`` writes with this
    seed, as `GeneratedSet` reads it. Annotations have ``image_id``, the number i, too. Samples are made in blocks of
    32, of which each DataLoader worker of each process of a distributed run makes every n-th.

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
        samplers, model = self._samplers(), self.model.to(self.device)
        for block in count(first, processes.world_size * workers):
            if self.end is not None and block * BLOCK_SIZE >= self.end:
                return
            with single_threaded(), torch.no_grad():
                scenes = sample_block(model, samplers, self.seed, block, self.device).scenes
                rendering = model.world.renderer.render_labelled(scenes)
            yield from self._examples(rendering, block * BLOCK_SIZE)

    def _samplers(self) -> list[Sampler]:
        return [component.sampler(conditions=self.conditions) for component in self.model.components]

    def _examples(self, rendering: Rendering, first: int) -> Iterator[Example]:
        """Yield the samples of a block that are among those asked for."""
        world, arrays = self.model.world, LabelArrays.from_rendering(rendering)
        pixels = _rgb_bytes(rendering.image)
        size = world.renderer.size if self.masks else None
        for i, image in enumerate(pixels):
            number = first + i
            if number < self.start or (self.end is not None and number >= self.end):
                continue
            try:
                labels, hidden = image_labels(arrays, i, world.classes, self.filter)
            except LabelError as error:
                raise UserError(f"sample {number} has inconsistent labels. {error}") from error
            found = label_annotations(labels, hidden, self.categories, self.amodal, size)
            annotations = stack_annotations(image, found, self.masks) | {"image_id": torch.tensor(number)}
            yield image, {name: values.to(self.device) for name, values in annotations.items()}

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


def _rgb_bytes(image: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Convert images as `ms2.core.images.to_pixels` does, on their device."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).contiguous()
