"""Detection of training that has diverged: a loss or weights that are not finite, or weights of absurd size."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ms2.core.errors import DivergenceError

MAX_WEIGHT = 1e6
"""Absolute value of a weight that no training reaches unless it diverges: a step changes it by about its rate."""


class TrainedWeights(NamedTuple):
    """Weights that are trained with one learning rate.

    Attributes:
        setting: Name of the learning rate's setting, such as ``extractor.lr``.
        lr: The learning rate.
        weights: The weights.
    """

    setting: str
    lr: float
    weights: Iterable[Tensor]


class FiniteTraining:
    """Hooks for a LightningModule, whose training ends with an error once it has diverged.

    Loss and weights are looked at when Lightning logs values, so that no other step waits for the device, before a
    checkpoint is saved, and when training ends: nothing that is not finite is kept.

    Attributes:
        trained_part: What is trained, as an error calls it.
    """

    trained_part: str
    _last_loss: Tensor | None = None

    @abstractmethod
    def trained_weights(self) -> list[TrainedWeights]:
        """Return the weights that are trained, with the settings of their learning rates."""

    @property
    def is_logged_step(self) -> bool:
        """Whether values of the step that runs are logged: in the trainer's interval, and in the last one.

        Logging in other steps would cost operators, for values that nobody sees.
        """
        trainer = self._trainer  # type: ignore[attr-defined]
        if trainer is None:
            return False
        interval, step = trainer.log_every_n_steps, trainer.global_step + 1
        return trainer.is_last_batch or step == trainer.max_steps or bool(interval and step % interval == 0)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check the loss and the weights in steps whose values are logged."""
        self._last_loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        trainer = self.trainer  # type: ignore[attr-defined]
        if trainer.log_every_n_steps and trainer.global_step % trainer.log_every_n_steps == 0:
            self.check_finite()

    def on_train_end(self) -> None:
        """Check the loss of the last step and the weights."""
        self.check_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the weights, so that no checkpoint holds what has diverged."""
        self.check_finite()

    def check_finite(self) -> None:
        """Check that the loss of the last step and all trained weights are finite.

        Raises:
            DivergenceError: If they are not; the message names the step and the learning rate.
        """
        if found := self.divergence():
            raise DivergenceError(found)

    def divergence(self) -> str | None:
        """Return how training has diverged, and what to do; None if it has not."""
        loss, groups = self._last_loss, self.trained_weights()
        largest = [max_abs(group.weights) for group in groups]
        diverged = [group for group, size in zip(groups, largest, strict=True) if not size <= MAX_WEIGHT]
        if diverged:
            size = max(largest)
            what = f"weights are as large as {size:.3g}" if size < math.inf else "weights are not finite"
        elif loss is not None and not bool(loss.isfinite().all()):
            what, diverged = "the loss is not finite", groups
        else:
            return None
        step = self.trainer.global_step  # type: ignore[attr-defined]
        lower = " and ".join(f"{group.setting}, now {group.lr:g}" for group in diverged)
        return f"{self.trained_part} diverged: at step {step} {what}. Nothing of it is kept; lower {lower}"


def max_abs(weights: Iterable[Tensor]) -> float:
    """Return the largest absolute value of weights; infinity if one is not finite."""
    sizes = [weight.detach().abs().amax().float() for weight in weights if weight.numel()]
    largest = float(torch.stack(sizes).max()) if sizes else 0.0
    return largest if largest < math.inf else math.inf  # which NaN is not


@contextmanager
def explained_divergence(module: object) -> Iterator[None]:
    """Replace an error of a module that has diverged, as of sampling with its probabilities, by one that says so."""
    try:
        yield
    except Exception as error:
        if isinstance(module, FiniteTraining) and (found := module.divergence()):
            raise DivergenceError(found) from error
        raise
