"""Sample the scenes of a data set in blocks, so that image i depends on the seed and on i only."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.core.seeding import generator
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
    """

    rules: Int[Tensor, "b t"]
    scenes: SceneBatch
    components: list[int]


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
