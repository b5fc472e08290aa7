"""Autoencoding stage: pretrain the parameter model to reconstruct the attributes that the prior draws."""

from jaxtyping import Int
from torch import Generator, Tensor

from ms2.core.bounds import BatchSize, PositiveFloat, PositiveInt, Seed
from ms2.learning.drawn_ahead import used_entries
from ms2.learning.stage import Stage
from ms2.models.parameters import ParameterModel
from ms2.scene.batch import SceneBatch
from ms2.world import World


class Autoencoding(Stage[SceneBatch]):
    """Trains the parameter model as an autoencoder of prior scenes, Meta-Sim's starting point.

    Args:
        world: The world to sample from.
        parameters: The parameter model; None skips the stage.
        max_steps: Training steps.
        batch_size: Scenes per step, over all processes.
        lr: Learning rate (Adam), which falls linearly to zero.
        seed: Seed of the scenes.

    Example:
        >>> stage = Autoencoding(world, parameters, max_steps=600)
        >>> Trainer(max_steps=stage.max_steps).fit(stage)
    """

    name, title = "autoencoding", "training the autoencoder"
    links = {"parameters": "model.parameters"}  # noqa: RUF012

    def __init__(
        self,
        world: World,
        parameters: ParameterModel | None = None,
        max_steps: PositiveInt = 600,
        batch_size: BatchSize = 128,
        lr: PositiveFloat = 2e-3,
        seed: Seed = 0,
    ) -> None:
        super().__init__(world, max_steps, batch_size, lr, seed)
        self.model = parameters

    @property
    def trained_module(self) -> ParameterModel:
        """The parameter model."""
        assert self.model is not None
        return self.model

    @property
    def needed(self) -> bool:
        """Whether parameters are learned."""
        return self.model is not None

    def draw_samples(self, n: int, generator: Generator) -> SceneBatch:
        """Draw scenes of the prior, and check that their attributes are within bounds."""
        scenes = self.world.sample_prior(n, generator)
        self.trained_module.check_bounds(scenes)
        return scenes

    def used(self, samples: SceneBatch) -> Int[Tensor, " b"]:
        """Compute the number of entries of each scene up to its last object."""
        return used_entries(samples)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Compute the reconstruction error of new prior scenes."""
        loss = self.trained_module.reconstruction_loss(self.samples(), self.step_generator())
        self.log_loss("loss", loss)
        return loss
