"""Labelled images that are rendered once and used in many training steps."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8
from torch import Tensor
from tqdm import tqdm

from ms2.core.distributed import Processes
from ms2.core.seeding import generator
from ms2.learning.rendered_ahead import Labelled, RenderedAhead
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch

LABELS = ("classes", "parents", "boxes", "corners", "visible_boxes", "visibility")
"""Labels that are kept: those of objects, and not those of pixels, which need many times the memory."""


class Images(NamedTuple):
    """Labelled images, with pixels as bytes.

    Attributes:
        pixels: The images.
        labels: Labels by the name of their field in `Rendering`.
        scenes: The scenes.
    """

    pixels: UInt8[Tensor, "m c h w"]
    labels: dict[str, Tensor]
    scenes: SceneBatch


class RenderedOnce:
    """Hands out the images of a `RenderedAhead` in the first steps, and then the same ones in another order each time.

    Where the network is small, rendering takes longer than training. Images are kept on the device as bytes, with their
    labels but for those of pixels.

    Args:
        images: Renders the images of the first steps.
        num_images: Number of images that are kept, over all processes: a multiple of the batch size.
        keys: Keys of the orders' generators, such as a seed and a name.

    Example:
        >>> scenes = DrawnAhead(world.sample_prior, used_entries, batch_size=8, num_steps=100, keys=(0, "example"))
        >>> once = RenderedOnce(RenderedAhead(world.renderer, scenes), num_images=32, keys=(0, "example"))
        >>> [len(once.step(step, torch.device("cpu"))[1]) for step in (0, 7)]
        [8, 8]
    """

    def __init__(self, images: RenderedAhead, num_images: int, keys: Iterable[int | str]) -> None:
        self.images, self.keys = images, tuple(keys)
        self.steps_per_pass = num_images // images.scenes.batch_size
        self._parts: list[Images] = []
        self._all: Images | None = None
        self._order: tuple[int, Int[Tensor, " m"]] | None = None
        self._held: tuple[torch.device, Processes] | None = None

    @torch.no_grad()
    def step(self, step: int, device: torch.device, processes: Processes = Processes()) -> Labelled:  # noqa: B008
        """Return this process's images of a step with their scenes."""
        if self._held != (device, processes):
            self.clear()
            self._held = device, processes
        number, place = divmod(step, self.steps_per_pass)
        if self._all is None:
            self._render(self.steps_per_pass if number else place + 1, device, processes)
            if not number:
                return _labelled(self._parts[place])
            self._all, self._parts = _joined(self._parts), []
            self.images.clear()
        if self._order is None or self._order[0] != number:
            draw = generator(*self.keys, "order", number, processes.rank, device=device)
            self._order = number, torch.randperm(len(self._all.pixels), generator=draw, device=device)
        local = self.images.scenes.batch_size // processes.world_size
        return _labelled(_chosen(self._all, self._order[1][place * local : (place + 1) * local]))

    def clear(self) -> None:
        """Free the images."""
        self._parts, self._all, self._order = [], None, None
        self.images.clear()

    def _render(self, end: int, device: torch.device, processes: Processes) -> None:
        """Render the images of all steps before one: many at once where training resumes."""
        steps = range(len(self._parts), end)
        for step in tqdm(steps, "rendering images again", disable=len(steps) < 2 or processes.rank > 0, leave=False):
            labels, scenes = self.images.step(step, device, processes)
            kept = {name: getattr(labels, name) for name in LABELS}
            self._parts.append(Images((labels.image * 255).round().byte(), kept, scenes))


def _labelled(images: Images) -> Labelled:
    pixels = images.pixels.float() / 255
    nothing = images.pixels.new_full((1, 1, 1), -1, dtype=torch.int64).expand(len(pixels), *pixels.shape[2:])
    return Rendering(pixels, instances=nothing, **images.labels), images.scenes


def _joined(parts: list[Images]) -> Images:
    """Join the images of steps, with as many entries as the largest scene has."""
    width = max(part.scenes.classes.shape[1] for part in parts)

    def join(tensors: list[Tensor], unused: int = 0) -> Tensor:
        if tensors[0].ndim == 1:
            return torch.cat(tensors)
        extra = (0, 0) * (tensors[0].ndim - 2)
        return torch.cat([F.pad(one, (*extra, 0, width - one.shape[1]), value=unused) for one in tensors])

    def each(name: str) -> list[dict[str, Tensor]]:
        return [getattr(part.scenes, name) for part in parts]

    labels = {
        name: join([part.labels[name] for part in parts], -1 if name in ("classes", "parents") else 0)
        for name in LABELS
    }
    scenes = SceneBatch(
        join([part.scenes.classes for part in parts], -1),
        join([part.scenes.parents for part in parts], -1),
        {name: join([some[name] for some in each("attributes")]) for name in parts[0].scenes.attributes},
        {name: torch.cat([some[name] for some in each("environment")]) for name in parts[0].scenes.environment},
    )
    return Images(torch.cat([part.pixels for part in parts]), labels, scenes)


def _chosen(images: Images, places: Int[Tensor, " b"]) -> Images:
    labels = {name: values[places] for name, values in images.labels.items()}
    return Images(images.pixels[places], labels, images.scenes[places])
