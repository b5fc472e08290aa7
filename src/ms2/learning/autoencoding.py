"""The stage before parameters are learned: the parameter model learns to give back what the prior drew."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.learning.steps import Steps
from ms2.models.parameters import ParameterModel
from ms2.world import World


class Autoencoding(Configured, LightningModule):
    """Trains the parameter model as an autoencoder of the prior's scenes, from where Meta-Sim learns.

    Args:
        world: Where scenes come from.
        parameters: The parameter model; None where no parameters are learned.
        max_steps: Training steps.
        batch_size: Scenes per step, over all processes together.
        lr: Learning rate (Adam), which falls linearly to zero.
        seed: Seed of the scenes.
    """

    def __init__(
        self,
        world: World,
        parameters: ParameterModel | None = None,
        max_steps: int = 600,
        batch_size: int = 128,
        lr: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.world, self.model = world, parameters
        self.max_steps, self.batch_size, self.lr, self.seed = max_steps, batch_size, lr, seed
        self.findings: dict[str, float] = {}

    title = "training the autoencoder"
    validate_every = None

    @property
    def product(self) -> ParameterModel:
        """What the stage trains."""
        assert self.model is not None
        return self.model

    @property
    def needed(self) -> bool:
        """Whether parameters are learned at all."""
        return self.model is not None

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Error of the reconstruction."""
        draw = generator(self.seed, "autoencoding", self.global_step, self.global_rank, device=self.device)
        scenes = self.world.sample_prior(self.batch_size // self.trainer.world_size, draw)
        loss = self.product.reconstruction(scenes, draw)
        self.log("autoencoding/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the learning rate fall."""
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.lr * (1 - self.global_step / self.max_steps)

    def train_dataloader(self) -> Steps:
        """Numbers of the steps; each draws its own scenes."""
        return Steps(self.max_steps)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.product.parameters(), self.lr)
