"""Hand-made distributions of object attributes, given the structure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.registry import Plugin
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch


class ParameterPrior(Plugin, ABC, kind="parameter_priors"):
    """Base class: a distribution over the attributes of objects, given the structure.

    Attributes:
        scenery: Names of further classes, whose objects the prior adds to a scene. Their class indices follow the
            grammar's.
        mutable: Mutable attributes, those that may be learned, by class (``EVERY`` for all of the grammar's,
            ``ENVIRONMENT`` for the scene as a whole), with the bounds within which learning keeps them. None by
            default.
        derived_attributes: Mutable attributes that no renderer reads, such as the gap to the next car, mapped to the
            attribute that `derive_attributes` computes from each, such as the car's position. From an attribute of the
            scene as a whole, those of objects may be derived too.

    Example:
        >>> class Scattered(ParameterPrior):
        ...     def sample(self, scenes, generator):
        ...         x, y = torch.rand(2, *scenes.classes.shape, generator=generator)
        ...         return scenes.with_attributes(x=x, y=y)
    """

    scenery: tuple[str, ...] = ()
    mutable: Mapping[str, Sequence[Attribute]] = {}
    derived_attributes: Mapping[str, str] = {}

    @abstractmethod
    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Sample the attributes of all objects, padding included."""

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """Recompute attributes that depend on mutable ones; differentiable in these."""
        return scenes

    def animate(self, scenes: SceneBatch, num_frames: int, fps: float, generator: torch.Generator) -> SceneBatch:
        """Continue scenes in time.

        Args:
            scenes: The scenes, at the time 0.
            num_frames: Number of frames of each scene.
            fps: Frames per second.
            generator: Draws what is random of the motion.

        Returns:
            The frames of all scenes, one scene after the other. An object has the same index in all frames of its
            scene, and the first is the scene itself, but for attributes that moving objects do not have.

        Raises:
            UserError: If scenes of this prior do not move.
        """
        raise UserError(
            f"scenes of {type(self).__name__} do not move: sequences (--frames) are of 3D worlds whose parameter prior "
            "has animate(), such as driving3d. Leave --frames out."
        )


def sample_uniform(
    scenes: SceneBatch, low: float | Tensor, high: float | Tensor, generator: torch.Generator
) -> Float[Tensor, "b n"]:
    """Sample one attribute of all objects, uniform between bounds.

    Example:
        >>> scenes = world.sample_prior(4, generator(0, "example"))
        >>> scenes = scenes.with_attributes(x=sample_uniform(scenes, 0.2, 0.8, generator(0, "x")))
    """
    draw = torch.rand(scenes.classes.shape, generator=generator, device=scenes.classes.device)
    return low + (high - low) * draw
