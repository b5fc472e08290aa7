"""Hand-made priors: over structures as samplers of derivations, and over the parameters of objects."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

EVERY, ENVIRONMENT = "*", "environment"
"""Whose attributes may be learned, beside single classes: all of the grammar's, and the scene as a whole."""


class Attribute(NamedTuple):
    """A parameter of every object, or of the scene: what a renderer reads, and what may be learned.

    Attributes:
        name: Its name.
        low: Least value.
        high: Greatest value.
        periodic: Whether it is an angle, so that ``high`` is ``low`` again.
        relative: Whether its bounds are those of its difference to the parent's, which it then follows.
    """

    name: str
    low: float
    high: float
    periodic: bool = False
    relative: bool = False

    def numbers(self, value: Float[Tensor, "*b"]) -> list[Float[Tensor, "*b"]]:
        """A value as numbers from -1 to 1, for a network: of an angle its cosine and sine."""
        if self.periodic:
            return [value.cos(), value.sin()]
        return [2 * (value - self.low) / (self.high - self.low) - 1]
