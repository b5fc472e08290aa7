"""MultiMNIST: learn how many digits, and which, from pictures of them (section 4.1)."""

from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import AroundAPlace, OnALine, RandomDigits, UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

__all__ = ["AroundAPlace", "DigitCanvas", "MultiMNIST", "OnALine", "RandomDigits", "UniformDigits", "UniformPlacement"]
