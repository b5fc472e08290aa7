"""The LightningDataModule of target images."""

import torch
from jaxtyping import Int
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ms2.data.steps import Steps
from ms2.data.target import Target
from ms2.registry import Configured
from ms2.seeding import generator


class IndexBatches(Steps):
    """For each step, which target images to compare with: drawn with replacement, by step and seed alone."""

    def __init__(self, steps: int, population: int, batch_size: int, seed: int) -> None:
        super().__init__(steps)
        self.population, self.batch_size, self.seed = population, batch_size, seed

    def batch(self, step: int) -> Int[Tensor, " m"]:
        """Indices of target images."""
        return torch.randint(self.population, (self.batch_size,), generator=generator(self.seed, "target batch", step))


class TargetImages(Configured, LightningDataModule):
    """Streams target images once, to embed them, and then tells each step which of them to compare with.

    Args:
        target: Where the images come from.
        batch_size: Target images, and generated ones, of a training step, over all processes together.
        read_batch_size: Images read at a time when embedding the target.
        num_workers: Processes that read images.
        seed: Seed of the batches.
    """

    def __init__(
        self, target: Target, batch_size: int = 256, read_batch_size: int = 128, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        self.target, self.batch_size, self.seed = target, batch_size, seed
        self.read_batch_size, self.num_workers = read_batch_size, num_workers
        self._verified = False

    def setup(self, stage: str) -> None:
        """Check the images once, before anything is trained on them."""
        if not self._verified:
            self.target.verify()
            self._verified = True

    def image_loader(self, rank: int = 0, world_size: int = 1) -> DataLoader[Tensor]:
        """Every ``world_size``-th image in order, from the ``rank``-th on, as ``uint8[b c h w]``."""
        share = Subset(self.target, range(rank, len(self.target), world_size))
        return DataLoader(share, self.read_batch_size, num_workers=self.num_workers)

    def train_dataloader(self) -> IndexBatches:
        """For each step, the target images to compare with."""
        steps = self.trainer.max_steps if self.trainer and self.trainer.max_steps > 0 else -1
        if steps < 0:
            steps = max(1, len(self.target) // self.batch_size)
        return IndexBatches(steps, len(self.target), self.batch_size, self.seed)

    def val_dataloader(self) -> DataLoader[int]:
        """One empty batch: validation draws its own scenes."""
        return DataLoader([0])  # type: ignore[arg-type]

    def predict_dataloader(self) -> DataLoader[int]:
        """Places for as many generated images as there are target images."""
        return DataLoader(range(len(self.target)), batch_size=self.read_batch_size)  # type: ignore[arg-type]

    test_dataloader = val_dataloader
