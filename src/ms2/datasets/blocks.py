"""Sample the scenes of a data set in blocks, so that image i depends on the seed and on i only."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.datasets.plan import Plan
from ms2.datasets.records import FLOW_MAPS, Frame
from ms2.models.mixed_scene_model import MixedSceneModel, draw_scenes
from ms2.models.scene_model import Sampler, SceneModel
from ms2.scene.batch import SceneBatch

BLOCK_SIZE = 32
"""Scenes that are sampled and rendered together. The images of a seed depend on it, so it is no setting."""


def num_blocks(num_scenes: int) -> int:
    """Return the number of blocks of a number of scenes."""
    return -(-num_scenes // BLOCK_SIZE)


def block_indices(block: int, num_scenes: int) -> range:
    """Return the indices of the scenes in a block."""
    return range(block * BLOCK_SIZE, min((block + 1) * BLOCK_SIZE, num_scenes))


class Block(NamedTuple):
    """The scenes of a block.

    Attributes:
        rules: Their derivations.
        scenes: The scenes.
        components: Index of the scene model that each is drawn from, among the model's components.
        frames: Where each is in a sequence; none for single scenes.
        following: Index in the block of the next frame of each; None for the last frame of a sequence.
    """

    rules: Int[Tensor, "b t"]
    scenes: SceneBatch
    components: list[int]
    frames: Sequence[Frame | None] = ()
    following: Sequence[int | None] = ()


def sample_block(
    model: SceneModel | MixedSceneModel,
    samplers: Sequence[Sampler],
    seed: int,
    block: int,
    device: torch.device | str = "cpu",
) -> Block:
    """Sample the derivations and scenes of a whole block, with a generator that depends on seed and block.

    Args:
        model: Samples the parameters, and says which of its components each scene is drawn from.
        samplers: Sample the derivations of each component: `SceneModel.sampler` with the conditions.
        seed: Seed of the data set.
        block: Number of the block.
        device: Device of the scenes.
    """
    draw = generator(seed, "dataset", block, device=torch.device(device))
    components = model.components_of(seed, range(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE))
    rules, scenes = draw_scenes(model.components, samplers, components, draw)
    return Block(rules, scenes.compact(), components)


class SceneBlocks:
    """Images of single scenes in blocks of 32.

    Args:
        plan: The data set's specification.
        model: Samples the scenes.
        samplers: Sample the derivations of each component.
        device: Device of the scenes.
    """

    def __init__(
        self,
        plan: Plan,
        model: SceneModel | MixedSceneModel,
        samplers: Sequence[Sampler],
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan, self.model, self.samplers, self.device = plan, model, samplers, device

    @property
    def numbers(self) -> range:
        """Numbers of the blocks."""
        return range(num_blocks(self.plan.num_scenes))

    def indices(self, block: int) -> range:
        """Return the indices of the images in a block."""
        return block_indices(block, self.plan.num_scenes)

    def check(self, scenes: SceneBatch) -> None:
        """Raise a `UserError` if the plan does not fit, given a few scenes.

        Raises:
            UserError: If flow was asked for, which needs frames.
        """
        flow = [name for name in self.plan.maps if name in FLOW_MAPS]
        if flow and self.plan.frames in (None, 1):
            raise UserError(f"{flow[0]} is the motion from a frame to the next one: give --frames 2, or more")

    def shown(self, missing: Sequence[int]) -> list[int]:
        """Return the images that are rendered where some are missing."""
        return list(missing)

    def sample(self, block: int, wanted: Sequence[int]) -> Block:
        """Sample the scenes of images of a block.

        All scenes of a block are sampled, whichever are wanted: so an image depends on the seed and its own index only.

        Args:
            block: Number of the block.
            wanted: Indices of the images.
        """
        rules, scenes, components, _, _ = self._sample_scenes(block)
        rows = [index - block * BLOCK_SIZE for index in wanted]
        chosen = torch.tensor(rows, device=rules.device)
        nothing: list[None] = [None] * len(rows)
        return Block(rules[chosen], scenes[chosen], [components[i] for i in rows], nothing, nothing)

    def _sample_scenes(self, block: int) -> Block:
        return sample_block(self.model, self.samplers, self.plan.seed, block, self.device)
