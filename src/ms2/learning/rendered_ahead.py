"""Labelled images of several training steps, rendered at once and handed out step by step."""

import math
from collections.abc import Callable, Sequence
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
        check: Checks labels, for which it may read the device: those of the first images of each block of scenes.
        render: Renders scenes with labels in place of the renderer, such as images of another size.

    Example:
        >>> scenes = DrawnAhead(world.sample_prior, used_entries, batch_size=8, num_steps=100, keys=(0, "example"))
        >>> labels, shown = RenderedAhead(world.renderer, scenes).step(5, torch.device("cpu"))
        >>> len(labels.image), len(shown)
        (8, 8)
    """

    def __init__(
        self,
        renderer: Renderer,
        scenes: DrawnAhead[SceneBatch],
        check: Callable[[Rendering], None] = lambda labels: None,
        render: Callable[[SceneBatch], Rendering] | None = None,
    ) -> None:
        self.renderer, self.scenes, self._check = renderer, scenes, check
        self._render = render or renderer.render_labelled
        self._held: tuple[range, torch.device, Processes] | None = None
        self._steps: Sequence[Labelled] = []

    @torch.no_grad()
    def step(self, step: int, device: torch.device, processes: Processes = Processes()) -> Labelled:  # noqa: B008
        """Return this process's images of a step with their scenes."""
        together = self.steps_together(device, processes)
        steps = self.scenes.group(step, together)
        if self._held != (steps, device, processes):
            self.clear()  # before more are drawn and rendered
            scenes = self.scenes.steps(steps.start, together, device, processes)
            labels = self._render(scenes)
            if steps.start % self.scenes.steps_per_block == 0:
                self._check(labels)
            self._steps = by_step(labels, scenes, len(steps))
            self._held = steps, device, processes
        return self._steps[step - steps.start]

    def steps_together(self, device: torch.device, processes: Processes = Processes()) -> int:  # noqa: B008
        """Return the number of steps whose images are rendered at once."""
        pixels = self.renderer.channels * math.prod(self.renderer.size)
        images = (MAX_BYTES_ON_CPU if device.type == "cpu" else MAX_BYTES) // (4 * pixels)
        return max(1, images * processes.world_size // self.scenes.batch_size)

    def clear(self) -> None:
        """Free the images."""
        self._held, self._steps = None, []


def by_step(labels: Rendering, scenes: SceneBatch, num_steps: int) -> Sequence[Labelled]:
    """Divide images and their scenes among steps."""
    if num_steps == 1:
        return [(labels, scenes)]
    local = len(scenes) // num_steps
    values = {field.name: getattr(labels, field.name) for field in fields(labels)}
    parts = {name: value.split(local) for name, value in values.items() if isinstance(value, Tensor)}
    shown = split_samples(scenes, lambda tensor: tensor.split(local))
    return [(replace(labels, **{name: part[i] for name, part in parts.items()}), some) for i, some in enumerate(shown)]
