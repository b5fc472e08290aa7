"""Hand-made distributions of the parameters of objects."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.registry import Plugin
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch


class ParameterPrior(Plugin, ABC, kind="parameter_priors"):
    """A distribution over the attributes of given objects: where they stand, how they turn, how they look.

    Attributes:
        scenery: Names of classes that the grammar lacks, of which it adds objects of its own to a scene. Their class
            numbers follow the grammar's.
        mutable: By class (``EVERY`` for all of the grammar's, ``ENVIRONMENT`` for the scene as a whole), the
            attributes that may be learned, with the bounds in which learning keeps them. None are unless a prior says
            so.
        derived_attributes: Mutable attributes of objects that no renderer reads, such as how a car is spaced, with what
            `derive_attributes` makes of each, such as its place.
    """

    scenery: tuple[str, ...] = ()
    mutable: Mapping[str, Sequence[Attribute]] = {}
    derived_attributes: Mapping[str, str] = {}

    @abstractmethod
    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """The same scenes with attributes drawn for every place, used or not."""

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """The same scenes with what follows from their mutable attributes; differentiable in these."""
        return scenes


def uniform(
    scenes: SceneBatch, low: float | Tensor, high: float | Tensor, generator: torch.Generator
) -> Float[Tensor, "b n"]:
    """One attribute, uniform between bounds."""
    draw = torch.rand(scenes.classes.shape, generator=generator, device=scenes.classes.device)
    return low + (high - low) * draw
