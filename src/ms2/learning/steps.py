"""Numbered steps, for training that makes its own data."""

from collections.abc import Iterator
from typing import Any


class Steps:
    """The numbers of a run's steps, as a resumable data loader.

    What a step works on follows from its number and the seed, so an interrupted run goes on as if it had not been.

    Args:
        steps: Number of steps of an epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.position = steps, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        end = (self.position // self.steps + 1) * self.steps  # of the epoch that is under way
        while self.position < end:
            self.position += 1
            yield self.batch(self.position - 1)

    def batch(self, step: int) -> Any:
        """What a step is given: its number."""
        return step

    def state_dict(self) -> dict[str, Any]:
        """How many steps it has begun, over all epochs."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.position = state["position"]
