"""Extractor stage: train a feature extractor on rendered samples, whose labels are exact, and measure its counts."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.core.bounds import BatchSize, PositiveFloat, PositiveInt, Seed
from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.features.base import CountingExtractor, FeatureExtractor, TrainedExtractor
from ms2.learning.drawn_ahead import used_entries
from ms2.learning.muon import Muon
from ms2.learning.probe import BATCH_SIZE, probe
from ms2.learning.rendered_ahead import RenderedAhead
from ms2.learning.rendered_once import RenderedOnce
from ms2.learning.stage import Stage
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World

NUM_CHECK_SCENES = 16
"""Scenes on which the loss is tried before training."""


class ExtractorTraining(Stage[SceneBatch]):
    """Trains a feature extractor on new images of the prior in each step, then measures how accurately it counts.

    An extractor that counts but is not trained, such as `DetectorCounts`, is measured only: there are no steps.

    Args:
        world: The world to sample from.
        features: The extractor.
        max_steps: Training steps.
        batch_size: Images per step, over all processes.
        lr: Peak learning rate of a one-cycle schedule (AdamW).
        max_grad_norm: Norm to which gradients are clipped; without clipping, one unusual batch can undo the training.
        structure_prior: Structure prior of the training images; the world's by default. A wider one lets the extractor
            count as many objects as the target may hold.
        parameter_prior: Parameter prior of the training images; the world's by default. One with more arrangements of
            objects than the world's lets the extractor read those too.
        probe_priors: Parameter priors by name, besides the world's, on whose images the trained extractor's counts are
            compared with the true ones.
        num_probe_images: Number of images of each parameter prior in that comparison, the world's included. The trained
            extractor is calibrated with as many images of training before.
        hidden_lr: Peak learning rate of the weights of hidden layers, whose steps are orthogonalised (`Muon`); None to
            train all weights with AdamW.
        num_images: Number of images that are rendered, after which the same ones are used again; a multiple of
            ``batch_size``. None to render new ones in each step.
        seed: Seed of the scenes.

    Example:
        >>> stage = ExtractorTraining(world, features, max_steps=2, num_probe_images=40)
        >>> Trainer(max_steps=2).fit(stage)
        >>> 0 <= stage.findings["prior"].scores["count_accuracy"] <= 1
        True
    """

    name, title = "extractor", "training the extractor"
    links = {"features": "model.features"}  # noqa: RUF012

    def __init__(
        self,
        world: World,
        features: FeatureExtractor,
        max_steps: PositiveInt = 400,
        batch_size: BatchSize = 64,
        lr: PositiveFloat = 4e-3,
        max_grad_norm: PositiveFloat = 0.5,
        structure_prior: StructurePrior | None = None,
        parameter_prior: ParameterPrior | None = None,
        probe_priors: dict[str, ParameterPrior] | None = None,
        num_probe_images: PositiveInt = 2000,
        hidden_lr: PositiveFloat | None = None,
        num_images: PositiveInt | None = None,
        seed: Seed = 0,
    ) -> None:
        is_trained = isinstance(features, TrainedExtractor)
        super().__init__(world, max_steps if is_trained else 0, batch_size, lr, seed)
        self.features, self.max_grad_norm, self.num_probe_images = features, max_grad_norm, num_probe_images
        self.hidden_lr = hidden_lr
        self.structure_prior = structure_prior or world.structure_prior
        self.parameter_prior = parameter_prior or world.parameter_prior
        self.images: RenderedAhead | RenderedOnce = RenderedAhead(
            world.renderer, self.ahead, self.check_labels, self.render_labelled
        )
        if num_images is not None and num_images < self.max_steps * batch_size:
            if num_images % batch_size:
                raise UserError(
                    f"extractor.num_images must be a multiple of extractor.batch_size: {num_images} is none of "
                    f"{batch_size}. Take {max(1, round(num_images / batch_size)) * batch_size}"
                )
            self.images = RenderedOnce(self.images, num_images, (seed, self.name))
        self.probe_priors = {"prior": world.parameter_prior, **(probe_priors or {})}

    @property
    def trained_module(self) -> FeatureExtractor:
        """The feature extractor."""
        return self.features

    @property
    def needed(self) -> bool:
        """Whether the extractor is one that ms2 trains, or one whose counts it measures."""
        return isinstance(self.features, CountingExtractor)

    @torch.no_grad()
    def check(self) -> None:
        """Try the loss, or the counts of an extractor that is not trained, on a few labelled samples.

        Raises:
            UserError: If the extractor doesn't fit images or labels.
        """
        training, state = self.features.training, copy.deepcopy(self.features.state_dict())
        self.features.eval()
        scenes = self.draw_samples(NUM_CHECK_SCENES, generator(self.seed, "check"))
        if isinstance(self.features, TrainedExtractor):
            self._loss(self.render_labelled(scenes), scenes)
        elif isinstance(self.features, CountingExtractor):
            self.features.predict_counts(self.world.renderer.render(scenes))
        self.features.load_state_dict(state)  # a loss may update running statistics
        self.features.train(training)

    def setup(self, stage: str) -> None:
        """Unfreeze the extractor, which `MetaSim2` freezes."""
        self.features.train().requires_grad_(True)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Compute the extractor's loss on one batch of labelled prior samples."""
        loss = self._loss(*self.images.step(self.global_step, self.device, Processes.current()))
        self.log_loss("loss", loss)
        return loss

    def draw_samples(self, n: int, generator: torch.Generator) -> SceneBatch:
        """Draw scenes of the prior."""
        rules = self.structure_prior.sample(self.world.grammar, n, generator)
        scenes = self.parameter_prior.sample(scenes_from_derivations(self.world.grammar, rules), generator)
        if isinstance(self.features, CountingExtractor) and self.features.labels_all:
            self.features.check_numbers(scenes.classes, scenes.parents, scenes.mask)
        return scenes

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Render scenes as the extractor is trained on them, which may be at a smaller size than the renderer's."""
        if isinstance(self.features, CountingExtractor):
            return self.features.render_labelled(self.world.renderer, scenes)
        return self.world.renderer.render_labelled(scenes)

    def check_labels(self, labels: Rendering) -> None:
        """Check that visible objects can all be counted, where hidden ones are not: which are is known only here.

        Raises:
            CountError: If an image holds more of them than the extractor can represent.
        """
        if isinstance(self.features, CountingExtractor) and not self.features.labels_all:
            self.features.check_numbers(labels.classes, labels.parents, self.features.labelled(labels))

    def used(self, samples: SceneBatch) -> Int[Tensor, " b"]:
        """Compute the number of entries of each scene up to its last object."""
        return used_entries(samples)

    def on_train_end(self) -> None:
        """Free the scenes and images that were made ahead."""
        super().on_train_end()
        self.images.clear()

    def _loss(self, labels: Rendering, scenes: SceneBatch) -> Tensor:
        assert isinstance(self.features, TrainedExtractor)
        return self.features.loss(labels.image, labels, scenes)

    def _training_images(self) -> Iterator[Tensor]:
        """Render images as those of training; the same in all processes."""
        draw = generator(self.seed, "calibration", device=self.device)
        for start in range(0, self.num_probe_images, BATCH_SIZE):
            number = min(BATCH_SIZE, self.num_probe_images - start)
            yield self.world.renderer.render(self.draw_samples(number, draw))

    def on_fit_end(self) -> None:
        """Measure the trained extractor; Lightning has moved it to the CPU by now."""
        self.measure(self.trainer.strategy.root_device)

    def measure(self, device: torch.device) -> None:
        """Calibrate a trained extractor, and measure how accurately the extractor counts."""
        if isinstance(self.features, CountingExtractor):
            self.to(device)
            self.features.eval()
            if isinstance(self.features, TrainedExtractor):
                self.features.calibrate(self._training_images())
            self.findings = probe(
                self.features, self.world, self.probe_priors, self.num_probe_images, self.seed, self.structure_prior
            )

    def configure_optimizers(self) -> Any:
        """Configure AdamW, or Muon, with a one-cycle schedule."""
        optimizer: torch.optim.AdamW
        if self.hidden_lr is None:
            optimizer = torch.optim.AdamW(self.features.parameters(), self.lr, fused=True)
        else:
            optimizer = Muon(self.features, self.lr, self.hidden_lr)
        peaks = [group["lr"] for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
