"""A resumable loader of step numbers, for training that draws its own data."""

from collections.abc import Iterator
from typing import Any


class Steps:
    """Loads the numbers of a run's steps, and resumes at the step where a run was interrupted.

    A step's data depend on its number and the seed alone, so a resumed run equals one without an interruption.

    Args:
        steps: Number of steps per epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.position = steps, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        end = (self.position // self.steps + 1) * self.steps  # of the current epoch
        while self.position < end:
            self.position += 1
            yield self.batch(self.position - 1)

    def batch(self, step: int) -> Any:
        """Return the batch of a step: its number."""
        return step

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps that have begun, over all epochs."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after a number of steps."""
        self.position = state["position"]
