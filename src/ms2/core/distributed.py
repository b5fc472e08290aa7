"""Processes of a distributed run, by plain ``torch.distributed``."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that compute together; by default there is one.

    All methods are collective: every process has to call them, in the same order. They communicate over the default
    process group of ``torch.distributed``, which a trainer sets up.

    Attributes:
        rank: Index of this process.
        world_size: Number of processes.

    Example:
        >>> Processes().gather(torch.arange(3))
        tensor([0, 1, 2])
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Return the processes of the default process group; one process where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @torch.no_grad()
    def gather(self, rows: Shaped[Tensor, "b *d"]) -> Shaped[Tensor, "m *d"]:
        """Concatenate the rows of all processes in rank order; each may have a different number. Without gradients."""
        if self.world_size == 1:
            return rows
        lengths = self.gather_equal(torch.tensor([len(rows)], device=rows.device)).tolist()
        padded = torch.cat([rows, rows.new_zeros(max(lengths) - len(rows), *rows.shape[1:])])
        parts = self.gather_equal(padded).reshape(self.world_size, *padded.shape)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @torch.no_grad()
    def gather_equal(self, rows: Shaped[Tensor, "b *d"]) -> Shaped[Tensor, "m *d"]:
        """Concatenate the rows of all processes, which have the same number each; does not wait for the device."""
        if self.world_size == 1:
            return rows
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.world_size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def gather_objects(self, value: T) -> list[T]:
        """Return the objects of all processes in rank order; they must be picklable."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def broadcast(self, value: T) -> T:
        """Return the first process's object on all processes; it must be picklable."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.world_size > 1:
            dist.barrier()

    def local_indices(self, n: int, device: torch.device | str = "cpu") -> Int[Tensor, " n"]:
        """Return the indices of this process's rows among the gathered rows, for n rows per process."""
        return self.rank * n + torch.arange(n, device=device)
