"""Base class of the stages that run before `MetaSim2`: each trains one module on samples of the prior."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic

import torch
from jaxtyping import Int
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ms2.core.bounds import BatchSize, NonNegativeInt, PositiveFloat, Seed
from ms2.core.clipping import clip_gradient
from ms2.core.distributed import Processes
from ms2.core.divergence import FiniteTraining, TrainedWeights
from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.learning.drawn_ahead import DrawnAhead, Samples
from ms2.learning.steps import Steps
from ms2.metrics.results import ProbeResult
from ms2.models.pretrained_weights import LEFT_OUT, fill_in, leave_out
from ms2.world import World


class Stage(Configured, FiniteTraining, LightningModule, ABC, Generic[Samples]):
    """Trains one module, its `trained_module`, for a number of steps, each on new samples.

    A subclass defines `trained_module`, `draw_samples`, `used`, ``training_step`` and the class attributes below. The
    samples of many steps are drawn at once (`DrawnAhead`), and ``training_step`` takes its own from `samples`. Adam
    with a learning rate that falls linearly to zero is the default optimiser. `ms2.learning.stages.run_stage` trains a
    stage once for its settings and loads the result from a cache afterwards.

    Args:
        world: The world to sample from.
        max_steps: Maximum number of training steps; 0 where the module is only measured.
        batch_size: Samples per step, over all processes.
        lr: Learning rate.
        seed: Seed of the samples.

    Attributes:
        name: Short name: the stage's section in a configuration, and the choice of ``ms2 fit --stage``.
        title: What the progress bar shows.
        links: Arguments that are taken from another part of a configuration, with the part's key: ``model.features``.
        max_grad_norm: Norm to which gradients are clipped; None for no clipping.
        val_check_interval: Steps between validations; None for none.
        findings: Accuracy of a trained extractor on rendered images, by the parameter prior that they are drawn from.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    links: ClassVar[Mapping[str, str]] = {}
    max_grad_norm: float | None = None
    val_check_interval: int | None = None

    def __init__(
        self, world: World, max_steps: NonNegativeInt, batch_size: BatchSize, lr: PositiveFloat, seed: Seed
    ) -> None:
        super().__init__()
        self.world, self.max_steps, self.batch_size, self.lr, self.seed = world, max_steps, batch_size, lr, seed
        self.findings: dict[str, ProbeResult] = {}
        self.ahead: DrawnAhead[Samples] = DrawnAhead(
            self.draw_samples, self.used, batch_size, max_steps, (seed, self.name)
        )

    @property
    @abstractmethod
    def trained_module(self) -> nn.Module:
        """The module that the stage trains."""

    @abstractmethod
    def draw_samples(self, n: int, generator: torch.Generator) -> Samples:
        """Draw n samples of the prior, on the generator's device. What has to read them to check them does so here."""

    @abstractmethod
    def used(self, samples: Samples) -> Int[Tensor, " b"]:
        """Compute the number of entries of each sample that are used."""

    @property
    def needed(self) -> bool:
        """Whether there is anything to train."""
        return True

    def check(self) -> None:
        """Check, before anything is trained, what can be known then.

        Raises:
            UserError: If settings don't fit each other.
        """

    def measure(self, device: torch.device) -> None:
        """Measure the module on a device; called in place of the training where there are no steps."""

    @property
    def trained_part(self) -> str:  # type: ignore[override]
        """The stage, as an error calls it."""
        return f"stage {self.name!r}"

    def trained_weights(self) -> list[TrainedWeights]:
        """Return the weights of the trained module, with the stage's learning rate."""
        return [TrainedWeights(f"{self.name}.lr", self.lr, self.trained_module.parameters())]

    def step_generator(self) -> torch.Generator:
        """Return the generator of what else this step draws, which depends on seed, stage, step and process alone."""
        return generator(self.seed, self.name, self.global_step, self.global_rank, device=self.device)

    def samples(self) -> Samples:
        """Return this process's samples of this step, which depend on seed, stage and step alone."""
        return self.ahead.step(self.global_step, self.device, Processes.current())

    def log_loss(self, name: str, loss: Tensor) -> None:
        """Log the loss of this step, if steps like it are logged."""
        if self.is_logged_step:
            self.log(f"{self.name}/{name}", loss, sync_dist=True)

    def on_train_end(self) -> None:
        """Check what was trained, and free the samples that were drawn ahead."""
        super().on_train_end()
        self.ahead.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the weights, and leave out those that are pretrained."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[LEFT_OUT] = leave_out(checkpoint["state_dict"], self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fill in the weights that were left out."""
        fill_in(checkpoint["state_dict"], checkpoint.get(LEFT_OUT), self)

    def train_dataloader(self) -> Steps:
        """Return a loader of step numbers; ``training_step`` takes the samples."""
        return Steps(self.max_steps)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradient norm of the trained module."""
        if self.max_grad_norm is not None:
            clip_gradient(self.trained_module.parameters(), self.max_grad_norm)

    def configure_optimizers(self) -> Any:
        """Configure Adam with a learning rate that falls linearly to zero."""
        optimizer = torch.optim.Adam(self.trained_module.parameters(), self.lr, fused=True)
        schedule = LambdaLR(optimizer, lambda step: 1 - step / self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
