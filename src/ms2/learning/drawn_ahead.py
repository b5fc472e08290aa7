"""Samples of the prior for many training steps, drawn at once and handed out for one step or several."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from ms2.core.distributed import Processes
from ms2.core.seeding import generator
from ms2.scene.batch import SceneBatch

BLOCK_SIZE = 4096
"""Samples that are drawn at once, at most: drawing so many takes hardly more operators than drawing a few."""

Samples = TypeVar("Samples", SceneBatch, Tensor)
"""Scenes, or derivations ``int64[b t]``."""


class DrawnAhead(Generic[Samples]):
    """Draws the samples of many steps in blocks, and hands out a process's own of one step or of several.

    Only what does not depend on trained weights can be drawn ahead. A block depends on the keys, its number, and the
    number of samples in it; all processes draw the same blocks and take their own parts, so that their samples are
    together those of one process. One block is held at a time. The device is waited for when a block is drawn, and not
    between.

    Args:
        draw: Draws a number of samples with a generator, on its device. What has to read them from the device to check
            them belongs here.
        used: Computes the number of entries of each sample that are used, from the first on: of samples that are handed
            out together, those that none of them uses are cut off.
        batch_size: Samples per step, over all processes.
        num_steps: Number of steps; a block holds no more.
        keys: Keys of the blocks' generators, such as a seed and a name.

    Example:
        >>> ahead = DrawnAhead(world.sample_prior, used_entries, batch_size=8, num_steps=100, keys=(0, "example"))
        >>> scenes = ahead.step(5, torch.device("cpu"))
        >>> len(scenes), len(ahead.step(5, torch.device("cpu"), Processes(rank=1, world_size=2)))
        (8, 4)
    """

    def __init__(
        self,
        draw: Callable[[int, Generator], Samples],
        used: Callable[[Samples], Int[Tensor, " b"]],
        batch_size: int,
        num_steps: int,
        keys: Iterable[int | str],
    ) -> None:
        self._draw: Callable[[int, Generator], Samples] = draw
        self._used: Callable[[Samples], Int[Tensor, " b"]] = used
        self.batch_size, self.num_steps, self._keys = batch_size, num_steps, tuple(keys)
        self.steps_per_block = min(max(1, BLOCK_SIZE // batch_size), num_steps)
        self._held: tuple[int, int, torch.device, Processes] | None = None
        self._groups: Sequence[Samples] = []

    def step(self, step: int, device: torch.device, processes: Processes = Processes()) -> Samples:  # noqa: B008
        """Return the samples of a step, counted from 0, that belong to this process."""
        return self.steps(step, 1, device, processes)

    def steps(
        self,
        first: int,
        together: int,
        device: torch.device,
        processes: Processes = Processes(),  # noqa: B008
    ) -> Samples:
        """Return this process's samples of a group of steps, in the order of the steps.

        A block is cut into groups when it is drawn, so that between blocks nothing is computed. Samples of a group have
        as many entries as the largest of them uses.

        Args:
            first: First step of the group, as `group` gives it.
            together: Number of steps of a group.
            device: Device of the samples.
            processes: This process, among all.
        """
        number, place = divmod(first, self.steps_per_block)
        if self._held != (number, together, device, processes):
            self.clear()  # before the next block is drawn
            self._groups = self._block(number, together, device, processes)
            self._held = number, together, device, processes
        return self._groups[place // together]

    def group(self, step: int, together: int) -> range:
        """Return the steps of a step's group: ``together``, or fewer where a block or the training ends."""
        start = step - step % self.steps_per_block
        first = step - (step - start) % together
        return range(first, min(first + together, start + self.steps_per_block, self.num_steps))

    def clear(self) -> None:
        """Free the block."""
        self._held, self._groups = None, []

    @torch.no_grad()
    def _block(self, number: int, together: int, device: torch.device, processes: Processes) -> Sequence[Samples]:
        """Draw a block, and cut what this process has of it into groups of steps."""
        shape = self.steps_per_block, self.batch_size
        samples = self._draw(shape[0] * shape[1], generator(*self._keys, "block", number, device=device))
        # one transfer from the device
        widths: list[int] = self._used(samples).view(shape).amax(1).clamp(min=1).tolist()
        # the last block's last steps may be beyond the last step
        widths = widths[: self.num_steps - number * self.steps_per_block]
        widest = [max(widths[i : i + together]) for i in range(0, len(widths), together)]
        local = self.batch_size // processes.world_size
        own = slice(processes.rank * local, (processes.rank + 1) * local)

        def in_groups(values: Tensor) -> Sequence[Tensor]:
            parts = values.unflatten(0, shape)[: len(widths), own].flatten(0, 1).split(together * local)
            return parts if values.ndim == 1 else [part[:, :width] for part, width in zip(parts, widest, strict=True)]

        return split_samples(samples, in_groups)


def split_samples(samples: Samples, split: Callable[[Tensor], Sequence[Tensor]]) -> Sequence[Samples]:
    """Split samples by a function that splits each of their tensors into as many parts."""
    if isinstance(samples, Tensor):
        return split(samples)
    classes, parents = split(samples.classes), split(samples.parents)
    attributes = {name: split(values) for name, values in samples.attributes.items()}
    environment = {name: split(values) for name, values in samples.environment.items()}
    return [
        SceneBatch(
            classes[i],
            parents[i],
            {name: values[i] for name, values in attributes.items()},
            {name: values[i] for name, values in environment.items()},
        )
        for i in range(len(classes))
    ]


def used_entries(scenes: SceneBatch) -> Int[Tensor, " b"]:
    """Compute the number of entries of each scene up to its last object."""
    place = torch.arange(1, scenes.classes.shape[1] + 1, device=scenes.classes.device)
    return (scenes.mask * place).amax(1)
