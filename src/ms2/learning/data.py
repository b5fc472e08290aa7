"""The LightningDataModule of target images."""

import os
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Int
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ms2.core.bounds import MAX_BATCH, BatchSize, Bounds, NonNegativeInt, PositiveInt, Seed, Workers
from ms2.core.distributed import Processes
from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.features.base import Blocks, FeatureExtractor
from ms2.learning.steps import Steps
from ms2.targets.base import ImageBatches, Target
from ms2.targets.embedding import Inspect, embed_target

PREDICT_IMAGES = 1000
"""Images that ``ms2 predict`` generates where the number of target images is unknown."""


class IndexBatches(Steps):
    """Loads indices of target images, sampled with replacement by a generator that depends on seed and step."""

    def __init__(self, steps: int, population: int, batch_size: int, seed: int) -> None:
        super().__init__(steps)
        self.population, self.batch_size, self.seed = population, batch_size, seed

    def batch(self, step: int) -> Int[Tensor, " m"]:
        """Draw the indices of a step's target images."""
        return torch.randint(self.population, (self.batch_size,), generator=generator(self.seed, "target batch", step))


class TargetImages(Configured, LightningDataModule):
    """Loads target images once, to embed them, and then indices of the target images of each training step.

    Args:
        target: The target images.
        batch_size: Number of target images, and of generated images, per training step, over all processes.
        embedding_batch_size: Images per batch when embedding the target.
        num_workers: Worker processes that load images; null for one less than there are cores, at most 8, where the
            images are embedded on a GPU, and none otherwise.
        keep_mib: Size in MiB of the images that are kept once they have been read, as bytes on the device, for whatever
            reads them again; none are kept if all of them together are larger.
        seed: Seed of the training batches.
        num_predict_images: Number of images that ``ms2 predict`` generates; null for as many as there are target
            images, or 1000 where the target is a stream.

    Attributes:
        num_images: Number of target images; of a stream it is known once its images are embedded.
        cache: Folder in which features of the target are cached; None for no cache.

    Example:
        >>> data = TargetImages(Synthetic(world, world.structure_prior), batch_size=128)
        >>> Trainer(max_steps=200).fit(model, datamodule=data)
    """

    def __init__(
        self,
        target: Target,
        batch_size: Annotated[int, Bounds(ge=2, le=MAX_BATCH)] = 256,
        embedding_batch_size: BatchSize = 128,
        num_workers: Workers | None = None,
        seed: Seed = 0,
        num_predict_images: PositiveInt | None = None,
        keep_mib: NonNegativeInt = 2048,
    ) -> None:
        super().__init__()
        self.target, self.batch_size, self.seed = target, batch_size, seed
        self.embedding_batch_size, self.num_workers = embedding_batch_size, num_workers
        self.num_predict_images, self.keep_mib = num_predict_images, keep_mib
        target.kept.max_bytes = keep_mib * 2**20
        self.num_images: int | None = None
        self.cache: Path | None = None
        self._verified = False

    def setup(self, stage: str) -> None:
        """Check the target images once, before anything is trained on them."""
        if not self._verified:
            self.target.verify()
            self._verified = True

    def image_batches(
        self,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
        device: torch.device | str = "cpu",
    ) -> ImageBatches:
        """Read one of ``world_size`` parts of the images on a device, see `Target.batches`."""
        device = torch.device(device)
        workers = self.num_workers
        if workers is None:
            workers = min(8, (os.cpu_count() or 1) - 1) if device.type == "cuda" else 0
        return self.target.batches(self.embedding_batch_size, device, workers, rank, world_size, limit)

    def embedded(
        self,
        features: FeatureExtractor,
        device: torch.device | str = "cpu",
        limit: int | None = None,
        on_first_batch: Inspect | None = None,
    ) -> Blocks:
        """Embed the target images, or load their features from the cache. All processes have to call this.

        Args:
            features: The extractor.
            device: Where features are computed and returned.
            limit: Maximum number of images.
            on_first_batch: Called with the first images, if they are embedded.
        """
        processes = Processes.current()
        batches = self.image_batches(processes.rank, processes.world_size, limit, device)
        return embed_target(self.target, features, batches, device, processes, limit, on_first_batch, self.cache)

    def train_dataloader(self) -> IndexBatches:
        """Load the indices of each step's target images."""
        population = self.num_images or len(self.target)
        steps = self.trainer.max_steps if self.trainer and self.trainer.max_steps > 0 else -1
        if steps < 0:
            steps = max(1, population // self.batch_size)
        return IndexBatches(steps, population, self.batch_size, self.seed)

    def val_dataloader(self) -> DataLoader[int]:
        """Load one empty batch: validation draws its own scenes."""
        return DataLoader([0])  # type: ignore[arg-type]

    def predict_dataloader(self) -> DataLoader[int]:
        """Load the indices of the images to generate."""
        places = range(self.num_predict_images or self.target.num_images or PREDICT_IMAGES)
        return DataLoader(places, batch_size=self.embedding_batch_size)  # type: ignore[arg-type]

    test_dataloader = val_dataloader
