"""Attributes of objects and scenes, with their bounds."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

EVERY, ENVIRONMENT = "*", "environment"
"""Owners of attributes besides single classes: all classes of the grammar, and the scene as a whole."""


class Attribute(NamedTuple):
    """A continuous attribute of objects, or of the scene as a whole.

    Attributes:
        name: Name of the attribute.
        low: Lower bound.
        high: Upper bound.
        periodic: Whether it is an angle, for which ``high`` equals ``low``.
        relative: Whether the bounds apply to the difference to the parent's value; the attribute then moves with it.

    Example:
        >>> Attribute("x", 0, 10).encode(torch.tensor([0.0, 5.0, 10.0]))
        [tensor([-1.,  0.,  1.])]
    """

    name: str
    low: float
    high: float
    periodic: bool = False
    relative: bool = False

    def encode(self, value: Float[Tensor, "*b"]) -> list[Float[Tensor, "*b"]]:
        """Encode values in [-1, 1] for a network: linearly between the bounds, angles as cosine and sine."""
        if self.periodic:
            return [value.cos(), value.sin()]
        middle = (self.low + self.high) / 2
        return [(value - middle if middle else value) * (2 / (self.high - self.low))]
