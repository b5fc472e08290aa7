"""Structure and parameter priors of MultiMNIST and of its target (section 4.1)."""

import math
from typing import Annotated

import torch
from torch import Tensor

from ms2.core.bounds import Bounds, Count, FiniteFloat, Fraction, NonNegativeFloat, Seed
from ms2.core.errors import UserError
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.priors.structure import ListLengthPrior
from ms2.scene.batch import SceneBatch
from ms2.worlds.multimnist.declaration import DIGITS, MUTABLE_ATTRIBUTES


class UniformDigits(ListLengthPrior):
    """The paper's structure prior: uniform number of digits, uniform classes.

    Args:
        max_digits: Maximum number of digits per scene.
    """

    def __init__(self, max_digits: Count = 10) -> None:
        super().__init__(lengths={"Digits": [1.0] * (max_digits + 1)})


class RandomDigits(ListLengthPrior):
    """The paper's target: random categorical distributions of the number of digits and of their classes.

    Weights of numbers are squares of uniform draws, for an irregular distribution, and those of classes uniform draws.

    Args:
        seed: Seed of both distributions.
        max_digits: Maximum number of digits per scene.
    """

    def __init__(self, seed: Seed = 0, max_digits: Count = 10) -> None:
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.rand(max_digits + 1, generator=generator) ** 2
        classes = torch.rand(len(DIGITS), generator=generator)
        super().__init__(lengths={"Digits": numbers.tolist()}, weights={"Digit": classes.tolist()})


LINE_ENDS = 0.3
"""Fraction of the canvas at both ends in which lines of digits begin and end."""


class UniformPlacement(ParameterPrior):
    """The paper's parameter prior: uniform positions, upright.

    Args:
        max_angle: Maximum absolute rotation in degrees.
        image_range: Range of each class's images to use, as fractions: (0, 0.5) for the first half.
        row_fraction: Fraction of scenes whose digits are in a row (evenly spaced on a line), to train extractors that
            count as well in such scenes. 0 in the paper.
    """

    mutable = MUTABLE_ATTRIBUTES

    def __init__(
        self,
        max_angle: Annotated[float, Bounds(ge=0, le=180)] = 0.0,
        image_range: tuple[Fraction, Fraction] = (0.0, 1.0),
        row_fraction: Fraction = 0.0,
    ) -> None:
        self.max_angle, self.image_range, self.row_fraction = max_angle, _checked_range(image_range), row_fraction

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Sample position, angle and image of each digit independently."""
        turn, (low, high) = math.radians(self.max_angle), self.image_range
        x, y, angle, example = torch.rand(4, *scenes.classes.shape, generator=generator, device=scenes.classes.device)
        placed = scenes.with_attributes(x=x, y=y, angle=turn * (2 * angle - 1), example=low + (high - low) * example)
        return self._on_lines(placed, generator) if self.row_fraction else placed

    def _on_lines(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Move the digits of some scenes to lines, from near one edge of the canvas to near the opposite one."""
        device = scenes.classes.device
        draws = torch.rand(6, len(scenes), 1, generator=generator, device=device)
        chance, direction, start, end, left, right = draws
        steps = (scenes.mask.sum(1, keepdim=True) - 1).clamp(min=1)
        fraction = torch.arange(scenes.classes.shape[1], device=device) / steps
        along, aside = LINE_ENDS * start + (1 - LINE_ENDS * (start + end)) * fraction, left + (right - left) * fraction
        horizontal = direction < 0.5
        x, y = torch.where(horizontal, along, aside), torch.where(horizontal, aside, along)
        moved = (chance < self.row_fraction) & scenes.mask
        of = scenes.attributes
        return scenes.with_attributes(x=torch.where(moved, x, of["x"]), y=torch.where(moved, y, of["y"]))


class NormalPlacement(ParameterPrior):
    """Normally distributed position and angle, as in Meta-Sim's experiments with one digit.

    Args:
        x: Mean and standard deviation of x in [0, 1], from left to right.
        y: Mean and standard deviation of y in [0, 1], from top to bottom.
        angle: Mean and standard deviation of the counter-clockwise angle in degrees.
        image_range: Range of each class's images to use, as fractions: (0, 0.5) for the first half.
    """

    mutable = MUTABLE_ATTRIBUTES

    def __init__(
        self,
        x: tuple[FiniteFloat, NonNegativeFloat] = (0.5, 0.05),
        y: tuple[FiniteFloat, NonNegativeFloat] = (0.5, 0.05),
        angle: tuple[FiniteFloat, NonNegativeFloat] = (0.0, 15.0),
        image_range: tuple[Fraction, Fraction] = (0.0, 1.0),
    ) -> None:
        self.x, self.y, self.angle, self.image_range = x, y, angle, _checked_range(image_range)

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Sample position, angle and image of each digit independently; clamp positions to the canvas."""

        def normal(mean: float, deviation: float) -> Tensor:
            draw = torch.randn(scenes.classes.shape, generator=generator, device=scenes.classes.device)
            return mean + deviation * draw

        turn = normal(*(math.radians(value) for value in self.angle))
        return scenes.with_attributes(
            x=normal(*self.x).clamp(0, 1),
            y=normal(*self.y).clamp(0, 1),
            angle=(turn + math.pi) % (2 * math.pi) - math.pi,
            example=sample_uniform(scenes, *self.image_range, generator),
        )


class LinePlacement(ParameterPrior):
    """The target's parameter prior: digits upright, evenly spaced on a straight line across the middle.

    On a canvas at least 10.5 times as wide as a digit, ten of them do not overlap.

    Args:
        image_range: Range of each class's images to use, as fractions: (0, 0.5) for the first half.
    """

    mutable = MUTABLE_ATTRIBUTES

    def __init__(self, image_range: tuple[Fraction, Fraction] = (0.0, 1.0)) -> None:
        self.image_range = _checked_range(image_range)

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Place digits evenly on a line, with margins of a quarter of their distance; sample the image of each."""
        number = scenes.mask.sum(1, keepdim=True).clamp(min=1)
        index = torch.arange(scenes.classes.shape[1], device=number.device)
        x = torch.where(number == 1, 0.5, (index + 0.25) / (number - 0.5)).clamp(max=1)
        return scenes.with_attributes(
            x=x,
            y=torch.full_like(x, 0.5),
            angle=torch.zeros_like(x),
            example=sample_uniform(scenes, *self.image_range, generator),
        )


def _checked_range(image_range: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= image_range[0] < image_range[1] <= 1:
        raise UserError(f"image_range must be two fractions in [0, 1] in ascending order, not {image_range}")
    return image_range
