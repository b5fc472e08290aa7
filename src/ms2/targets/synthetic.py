"""Target images rendered from a hidden distribution, to test with."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.core.settings import fingerprint
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.base import Target
from ms2.world import World


class Synthetic(Target):
    """Images rendered from a hidden distribution of structure and parameter_prior, which learning is to recover.

    Args:
        world: Whose grammar and renderer make the images.
        structure_prior: The hidden distribution of structure.
        parameter_prior: The hidden distribution of parameters; the world's by default.
        num_images: Number of images.
        seed: Seed of the scenes.
    """

    def __init__(
        self,
        world: World,
        structure_prior: StructurePrior,
        parameter_prior: ParameterPrior | None = None,
        num_images: int = 4000,
        seed: int = 0,
    ) -> None:
        if num_images < 2:
            raise UserError(f"a target needs at least 2 images, not {num_images}")
        self.world, self.num_images = world, num_images
        self.hidden = World(world.grammar, structure_prior, parameter_prior or world.parameter_prior, world.renderer)
        self.seed = seed

    @cached_property
    def _drawn(self) -> tuple[Int[Tensor, "n t"], SceneBatch]:
        """Derivations, and the scenes to be rendered."""
        draw = generator(self.seed, "target")
        rules = self.hidden.structure_prior.sample(self.hidden.grammar, self.num_images, draw)
        return rules, self.hidden.scenes(rules, draw)

    @property
    def scenes(self) -> SceneBatch:
        """The images' scenes with their parameter_prior, for evaluation only."""
        return self._drawn[1]

    @property
    def derivations(self) -> Int[Tensor, "n t"]:  # type: ignore[override]
        """The derivations of the images' scenes, for evaluation only."""
        return self._drawn[0]

    @cached_property
    def truth(self) -> SceneBatch:  # type: ignore[override]
        """The structure of the images' scenes, for evaluation only."""
        return scenes_from_derivations(self.hidden.grammar, self.derivations)

    def __len__(self) -> int:
        """Number of images."""
        return self.num_images

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Several images, rendered together."""
        return list(_to_bytes(self.world.renderer.render(self._drawn[1][torch.as_tensor(indices)])))

    def key(self) -> str:
        """Hash of the settings."""
        return fingerprint(self)


def _to_bytes(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    return (images * 255).round().to(torch.uint8)
