"""Labelled images of several training steps, rendered at once and handed out step by step."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.learning.drawn_ahead import DrawnAhead, split_samples
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch

MAX_BYTES, MAX_BYTES_ON_CPU = 2**28, 2**22
"""Size of the pixels that are rendered at once: a GPU is idle with few images, while a CPU's caches hold no more."""

Labelled = tuple[Rendering, SceneBatch]
"""Images with labels, and their scenes."""


class RenderedAhead:
    """Renders the images of several steps of a `DrawnAhead` at once; those of one call are held at a time.

    Args:
        renderer: Renders the images.
        scenes: The scenes of each step.

    Example:
        >>> scenes = DrawnAhead(world.sample_prior, used_entries, batch_size=8, num_steps=100, keys=(0, "example"))
        >>> labels, shown = RenderedAhead(world.renderer, scenes).step(5, torch.device("cpu"))
        >>> len(labels.image), len(shown)
        (8, 8)
    """

    def __init__(self, renderer: Renderer, scenes: DrawnAhead[SceneBatch]) -> None:
        self.renderer, self.scenes = renderer, scenes
        self._held: tuple[int, torch.device, Processes] | None = None
        self._steps: Sequence[Labelled] = []

    def step(self, step: int, device: torch.device, processes: Processes = Processes()) -> Labelled:  # noqa: B008
        """Return this process's images of a step with their scenes."""
        first = step - step % self.scenes.steps_per_block % self.steps_together(device, processes)
        if self._held != (first, device, processes):
            self.clear()  # before more are rendered
            self._steps = self._render(first, device, processes)
            self._held = first, device, processes
        return self._steps[step - first]

    def steps_together(self, device: torch.device, processes: Processes = Processes()) -> int:  # noqa: B008
        """Return the number of steps whose images are rendered at once."""
        pixels = self.renderer.channels * math.prod(self.renderer.size)
        images = (MAX_BYTES_ON_CPU if device.type == "cpu" else MAX_BYTES) // (4 * pixels)
        return max(1, images * processes.world_size // self.scenes.batch_size)

    def clear(self) -> None:
        """Free the images."""
        self._held, self._steps = None, []

    @torch.no_grad()
    def _render(self, first: int, device: torch.device, processes: Processes) -> Sequence[Labelled]:
        """Render the images of the steps from a first one on, of those in its block that are trained at all."""
        per_block = self.scenes.steps_per_block
        end = min(first + self.steps_together(device, processes), first - first % per_block + per_block)
        end = max(first + 1, min(end, self.scenes.num_steps)) if first < self.scenes.num_steps else end
        scenes = [self.scenes.step(step, device, processes) for step in range(first, end)]
        if len(scenes) == 1:
            return [(self.renderer.render_labelled(scenes[0]), scenes[0])]
        whole, batch_size = concatenated(scenes), len(scenes[0])
        rendering = self.renderer.render_labelled(whole)
        values = {field.name: getattr(rendering, field.name) for field in fields(rendering)}
        parts = {name: value.split(batch_size) for name, value in values.items() if isinstance(value, Tensor)}
        shown = split_samples(whole, lambda tensor: tensor.split(batch_size))
        return [
            (replace(rendering, **{name: part[i] for name, part in parts.items()}), some)
            for i, some in enumerate(shown)
        ]


def concatenated(scenes: Sequence[SceneBatch]) -> SceneBatch:
    """Concatenate batches of scenes, which may differ in the number of their entries."""
    width = max(some.classes.shape[1] for some in scenes)

    def joined(parts: Sequence[Tensor], unused: int | None = None) -> Tensor:
        """Concatenate; unused entries repeat the last one, as values that a prior never draws may break a renderer."""
        if parts[0].ndim == 1:
            return torch.cat(list(parts))
        lacking = [width - part.shape[1] for part in parts]
        last = [p[:, -1:] if unused is None else torch.full_like(p[:, -1:], unused) for p in parts]
        return torch.cat([torch.cat([p, q.expand(-1, n)], 1) for p, q, n in zip(parts, last, lacking, strict=True)])

    return SceneBatch(
        joined([some.classes for some in scenes], -1),
        joined([some.parents for some in scenes], -1),
        {name: joined([some.attributes[name] for some in scenes]) for name in scenes[0].attributes},
        {name: joined([some.environment[name] for some in scenes]) for name in scenes[0].environment},
    )
