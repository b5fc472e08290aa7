"""Stage 1: train a feature extractor on samples of the prior, whose labels are free and exact."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.features.base import FeatureExtractor, TrainedExtractor
from ms2.learning.probe import probe
from ms2.learning.steps import Steps
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import scenes_of
from ms2.world import World


class ExtractorTraining(Configured, LightningModule):
    """Trains an extractor on images of the prior, made anew for each step.

    Args:
        world: Where scenes come from.
        features: The extractor.
        max_steps: Training steps.
        batch_size: Images per step, over all processes together.
        lr: Highest learning rate of a one-cycle schedule (AdamW).
        max_gradient: Largest norm of the gradient; longer ones are cut. One bad batch can otherwise undo the training.
        structure_prior: Structure prior of the images; the world's by default. A wider one teaches the extractor to
            count what the target may hold beyond it.
        parameter_prior: Parameter prior of the images, likewise; one with more kinds of layout than the world's teaches
            it to read those too.
        probe_priors: Parameter priors by name that the trained extractor is probed on, beside the world's own.
        probe_images: Images of each layout that it is probed on.
        seed: Seed of the scenes.
    """

    def __init__(
        self,
        world: World,
        features: FeatureExtractor,
        max_steps: int = 400,
        batch_size: int = 64,
        lr: float = 4e-3,
        max_gradient: float = 0.5,
        structure_prior: StructurePrior | None = None,
        parameter_prior: ParameterPrior | None = None,
        probe_priors: dict[str, ParameterPrior] | None = None,
        probe_images: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.world, self.features, self.structure_prior = world, features, structure_prior or world.structure_prior
        self.parameter_prior = parameter_prior or world.parameter_prior
        self.max_steps, self.batch_size, self.lr, self.seed = max_steps, batch_size, lr, seed
        self.max_gradient, self.probe_images = max_gradient, probe_images
        self.probe_priors = {"prior": world.parameter_prior, **(probe_priors or {})}
        self.findings: dict[str, float] = {}

    title = "training the extractor"
    validate_every = None

    @property
    def product(self) -> FeatureExtractor:
        """What the stage trains."""
        return self.features

    @property
    def needed(self) -> bool:
        """Whether the extractor is one that is trained here."""
        return isinstance(self.features, TrainedExtractor)

    def setup(self, stage: str) -> None:
        """Thaw the extractor, which structure learning freezes."""
        self.features.train().requires_grad_(True)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Loss on one batch of labelled prior samples."""
        assert isinstance(self.features, TrainedExtractor)
        draw = generator(self.seed, "extractor", self.global_step, self.global_rank, device=self.device)
        rules = self.structure_prior.sample(self.world.grammar, self.batch_size // self.trainer.world_size, draw)
        scenes = self.parameter_prior.sample(scenes_of(self.world.grammar, rules), draw)
        labels = self.world.renderer.render_labelled(scenes)
        loss = self.features.loss(labels.image, labels, scenes)
        self.log("extractor/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def train_dataloader(self) -> Steps:
        """Numbers of the steps; each makes its own images."""
        return Steps(self.max_steps)

    def on_fit_end(self) -> None:
        """Probe what the features can count."""
        if isinstance(self.features, TrainedExtractor):
            self.to(self.trainer.strategy.root_device)  # which Lightning has taken it off by now
            self.features.eval()
            self.findings = probe(
                self.features,
                self.world,
                self.probe_priors,
                self.probe_images,
                seed=self.seed,
                prior=self.structure_prior,
            )

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Cut long gradients."""
        torch.nn.utils.clip_grad_norm_(self.features.parameters(), self.max_gradient)

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle schedule."""
        optimizer = torch.optim.AdamW(self.features.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
