"""MultiMNIST: handwritten digits on a canvas (section 4.1)."""

from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, NormalPlacement, RandomDigits, UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

__all__ = [
    "DigitCanvas",
    "LinePlacement",
    "MultiMNIST",
    "NormalPlacement",
    "RandomDigits",
    "UniformDigits",
    "UniformPlacement",
]
