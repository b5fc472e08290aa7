"""Optimisation of several models that are trained in different steps of one run."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ms2.core.divergence import FiniteTraining
from ms2.learning.learner import Learner
from ms2.learning.turns import Turns
from ms2.models.scene_model import SceneModel


class AlternatingOptimisation(FiniteTraining, LightningModule, ABC):
    """Optimises the structure model and the parameter model, each in steps of its own.

    Each model has a parameter group of one Adam optimiser, with a learner that sets its learning rate and clips its
    gradients. `Turns` says which of them a step trains. A subclass sets the attributes and defines ``training_step``.

    Attributes:
        scene_model: The models.
        turns: Which steps train which model.
        parameter_mean: Moving average of the parameter model's weights; None for none.
    """

    trained_part = "learning"
    scene_model: SceneModel
    turns: Turns
    parameter_mean: AveragedModel | None

    @property
    @abstractmethod
    def learners(self) -> list[Learner]:
        """Learner of the structure model, and of the parameter model if there is one."""

    @property
    def max_steps(self) -> int:
        """Number of steps of the run; -1 where it has no end or there is no trainer."""
        return -1 if self._trainer is None else self.trainer.max_steps

    @property
    def is_parameter_step(self) -> bool:
        """Whether the current step trains parameters."""
        return self.turns.is_parameter_step(self.global_step, self.max_steps)

    @property
    def parameter_steps(self) -> int:
        """Number of parameter steps before the current step."""
        return self.turns.parameter_steps_before(self.global_step, self.max_steps)

    def weights(self) -> list[list[nn.Parameter]]:
        """Return the weights that each learner trains."""
        return [learner.weights(self.scene_model) for learner in self.learners]

    def learning_rates(self) -> list[float]:
        """Return the learning rate of each learner in the current step."""
        progress = self.turns.progress(self.global_step, self.max_steps)
        return [learner.learning_rate(done) for learner, done in zip(self.learners, progress, strict=False)]

    def with_all_weights(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Add zero times all weights to the loss, as distributed training needs a gradient of every weight."""
        if self.trainer.world_size == 1:
            return loss
        return loss + 0 * torch.stack([weight.sum() for group in self.weights() for weight in group]).sum()

    def setup(self, stage: str) -> None:
        """Freeze the weights that no learner trains, before processes agree on what is trained."""
        self.requires_grad_(False)
        for group in self.weights():
            for weight in group:
                weight.requires_grad_(True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Configure Adam, with a group of weights for each learner."""
        groups = zip(self.weights(), self.learning_rates(), strict=True)
        return torch.optim.Adam([{"params": weights, "lr": lr} for weights, lr in groups], fused=True)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rates from the settings, which override a checkpoint's."""
        for group, lr in zip(self.optimizers().param_groups, self.learning_rates(), strict=True):  # type: ignore[union-attr]
            group["lr"] = lr

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradient norm of each model."""
        for learner in self.learners:
            learner.clip_gradient(self.scene_model)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Drop gradients of the model that this step does not train, so that momentum does not move it."""
        for index, group in enumerate(self.weights()):
            if index != int(self.is_parameter_step):
                for weight in group:
                    weight.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimiser, and update the moving average of the parameter model's weights.

        After the last parameter step the average replaces the weights.
        """
        step, number, is_parameter_step = self.global_step, self.parameter_steps, self.is_parameter_step
        parameters = self.scene_model.parameters
        super().optimizer_step(*args, **kwargs)
        if is_parameter_step and self.parameter_mean is not None and parameters is not None:
            self.turns.update_average(self.parameter_mean, parameters, number)
            if self.turns.is_last_parameter_step(step, self.max_steps):
                parameters.load_state_dict(self.parameter_mean.module.state_dict())
