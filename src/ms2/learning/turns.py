"""Schedule of the steps that train structure and parameters, and the progress of both."""

import math
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ms2.core.bounds import Fraction, PositiveInt
from ms2.core.settings import Configured

Schedule = Literal["last", "first", "alternating"]


class Progress(NamedTuple):
    """Fraction of the steps of each model that are done, 0..1; 0 if the run has no ``max_steps``."""

    structure: float
    parameters: float


class Turns(Configured):
    """The steps of a run that train the parameter model; the others train the structure model.

    Args:
        schedule: When parameters are trained: ``last`` (as in the paper's Table 2), ``first``, or ``alternating``
            with structure.
        parameter_fraction: Fraction of the steps that train parameters, 0 to 1. With 1 structure is not learned, as in
            Meta-Sim; with 0 parameters are not.
        ema_steps: Time constant, in steps, of an exponential moving average of the parameter model's weights, which
            replace the weights after the last parameter step. Matching distributions batch by batch circles around the
            target, as in adversarial learning, and the average lies nearer to it (Yazici et al., ICLR 2019). 1 is no
            average, as in Meta-Sim.

    Example:
        >>> turns = Turns("last", parameter_fraction=0.5)
        >>> [turns.is_parameter_step(step, max_steps=6) for step in range(6)]
        [False, False, False, True, True, True]
    """

    def __init__(
        self, schedule: Schedule = "last", parameter_fraction: Fraction = 0.5, ema_steps: PositiveInt = 1
    ) -> None:
        self.schedule, self.parameter_fraction, self.ema_steps = schedule, parameter_fraction, ema_steps

    def parameter_steps_before(self, step: int, max_steps: int) -> int:
        """Count the parameter steps among the steps 0..step - 1 of a run of max_steps steps."""
        if self.parameter_fraction == 0:
            return 0
        if self.schedule == "alternating":
            return self._fraction_of(step)
        number = self._fraction_of(max_steps)
        return min(step, number) if self.schedule == "first" else max(0, step - (max_steps - number))

    def is_parameter_step(self, step: int, max_steps: int) -> bool:
        """Return whether a step, counted from 0, trains parameters."""
        return self.parameter_steps_before(step + 1, max_steps) > self.parameter_steps_before(step, max_steps)

    def is_last_parameter_step(self, step: int, max_steps: int) -> bool:
        """Return whether a parameter step is the run's last one."""
        return self.parameter_steps_before(step + 1, max_steps) == self.parameter_steps_before(max_steps, max_steps)

    def progress(self, step: int, max_steps: int) -> Progress:
        """Return the fraction of its own steps that each model has done before a step."""
        done, total = (self.parameter_steps_before(s, max_steps) for s in (step, max_steps))
        structure = (step - done) / max(1, max_steps - total) if max_steps > 0 else 0.0
        return Progress(structure, done / max(1, total))

    def weight_average(self, model: nn.Module) -> AveragedModel | None:
        """Make the moving average of a model's weights, without gradients; None where ``ema_steps`` is 1.

        As long as there are fewer updates than ``ema_steps``, it is their mean.
        """
        if self.ema_steps == 1:
            return None
        # Processes would wait for the gradients of what they take for trained weights.
        return AveragedModel(model).requires_grad_(False)

    @torch.no_grad()
    def update_average(self, average: AveragedModel, model: nn.Module, number: int) -> None:
        """Update the moving average of a model's weights, in place, after a number of earlier updates.

        `AveragedModel` reads the number from the device.
        """
        weight = max(1 / (number + 1), 1 / self.ema_steps)
        torch._foreach_lerp_(list(average.module.parameters()), list(model.parameters()), weight)
        average.n_averaged += 1

    def _fraction_of(self, steps: int) -> int:
        return math.floor(steps * self.parameter_fraction + 1e-9)
