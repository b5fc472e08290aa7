"""Target images rendered from a hidden distribution, to evaluate what is learned against it."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.core.bounds import SampleSize, Seed
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.core.settings import fingerprint
from ms2.datasets.blocks import BLOCK_SIZE, block_indices, num_blocks, sample_block
from ms2.datasets.rendered_set import RenderedSet
from ms2.grammar.grammar import Grammar
from ms2.models.scene_model import SceneModel
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.base import ImageBatches, Target
from ms2.targets.kept_images import KeptBatches
from ms2.world import World

HELD_OUT_SEED = 1_000_003
"""Seed of held-out scenes, which no training set has."""


class Synthetic(Target):
    """Images rendered from a hidden distribution of structure and parameters, which learning is to recover.

    Args:
        world: The world; its grammar and renderer make the images.
        structure_prior: The hidden distribution of structure.
        parameter_prior: The hidden distribution of parameters; the world's by default.
        num_images: Number of images.
        seed: Seed of the scenes.
        grammar: The grammar of the hidden structure prior; the world's by default. Another one is for worlds whose
            grammar is learned: its classes must be the first of the world's.

    Raises:
        UserError: If the world has other classes than the hidden grammar.

    Example:
        >>> target = Synthetic(world, world.structure_prior, num_images=16)
        >>> len(target), target[0].shape == (world.renderer.channels, *world.renderer.size)
        (16, True)
    """

    hidden: World

    def __init__(
        self,
        world: World,
        structure_prior: StructurePrior,
        parameter_prior: ParameterPrior | None = None,
        num_images: SampleSize = 4000,
        seed: Seed = 0,
        grammar: Grammar | None = None,
    ) -> None:
        self.world, self._num_images, grammar = world, num_images, grammar or world.grammar
        if grammar.classes != world.classes[: len(grammar.classes)]:
            raise UserError(
                f"the target's grammar has the classes {', '.join(grammar.classes)}, in this order, but the world has "
                f"{', '.join(world.classes)}: give both the same, those of the target first"
            )
        self.hidden = World(grammar, structure_prior, parameter_prior or world.parameter_prior, world.renderer)
        self.seed = seed

    @cached_property
    def _sampled(self) -> tuple[Int[Tensor, "n t"], SceneBatch]:
        """Derivations, and their scenes with parameters."""
        draw = generator(self.seed, "target")
        rules = self.hidden.structure_prior.sample(self.hidden.grammar, len(self), draw)
        return rules, self.hidden.scenes(rules, draw)

    @property
    def scenes(self) -> SceneBatch:  # type: ignore[override]
        """The images' scenes with their parameters, for evaluation only."""
        return self._sampled[1]

    @property
    def derivations(self) -> Int[Tensor, "n t"] | None:  # type: ignore[override]
        """The derivations of the images' scenes, for evaluation only; None if they are of another grammar."""
        return self._sampled[0] if self.hidden.grammar.fingerprint == self.world.grammar.fingerprint else None

    @cached_property
    def truth(self) -> SceneBatch:  # type: ignore[override]
        """The structure of the images' scenes, for evaluation only."""
        return scenes_from_derivations(self.hidden.grammar, self._sampled[0])

    def __len__(self) -> int:
        """Return the number of images."""
        return self._num_images

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Render several images."""
        return list(self.rendered(torch.as_tensor(indices), torch.device("cpu")))

    @torch.no_grad()
    def rendered(self, indices: Int[Tensor, " b"], device: torch.device) -> UInt8[Tensor, "b c h w"]:
        """Render several images on a device."""
        return _to_bytes(self.world.renderer.render(self.scenes[indices].to(device)))

    def batches(
        self,
        batch_size: int,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
    ) -> ImageBatches:
        """Render a process's `partition` of the images in batches, on the device; on a CPU, workers share the work."""
        device = torch.device(device)
        if device.type == "cpu" and num_workers:
            return super().batches(batch_size, device, num_workers, rank, world_size, limit)
        indices = self.partition_indices(rank, world_size, limit)
        parts = torch.as_tensor(list(indices), dtype=torch.long).split(batch_size)

        def render() -> ImageBatches:
            return ((part, self.rendered(part, device)) for part in parts)

        return KeptBatches(self.kept, indices, batch_size, render, device)

    def labelled_set(self, categories: Sequence[str] | None = None, num_held_out: int | None = None) -> RenderedSet:
        """Return the images with the renderer's labels, or held-out images of the hidden distribution."""
        n = len(self) if num_held_out is None else num_held_out
        if num_held_out is None:
            blocks = [self.scenes[i : i + BLOCK_SIZE].compact() for i in range(0, n, BLOCK_SIZE)]
        else:
            model = SceneModel(self.hidden)
            blocks = [
                sample_block(model, [model.sampler()], HELD_OUT_SEED, block).scenes[: len(block_indices(block, n))]
                for block in range(num_blocks(n))
            ]
        return RenderedSet(self.hidden, blocks, categories)

    def fingerprint(self) -> str:
        """Compute a hash of the settings."""
        return fingerprint(self)


def _to_bytes(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    return (images * 255).round().to(torch.uint8)
