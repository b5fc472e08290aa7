"""Structure and parameter priors of MultiMNIST, and those of its target (section 4.1)."""

import math

import torch
from torch import Tensor

from ms2.core.errors import UserError
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.priors.structure import ListLengthPrior
from ms2.scene.attributes import EVERY, Attribute
from ms2.scene.batch import SceneBatch


class UniformDigits(ListLengthPrior):
    """The paper's prior: the number of digits uniform, and each digit's class uniform.

    Args:
        max_digits: Most digits in a scene.
    """

    def __init__(self, max_digits: int = 10) -> None:
        super().__init__(lengths={"Digits": [1.0] * (max_digits + 1)})


class RandomDigits(ListLengthPrior):
    """The paper's target: a random distribution of the number of digits, and one of their classes.

    Weights of numbers are squares of uniform draws, which makes their distribution irregular, and those of
    classes uniform draws.

    Args:
        seed: Seed of both distributions.
        max_digits: Most digits in a scene.
    """

    def __init__(self, seed: int = 0, max_digits: int = 10) -> None:
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.rand(max_digits + 1, generator=generator) ** 2
        classes = torch.rand(10, generator=generator)
        super().__init__(lengths={"Digits": numbers.tolist()}, weights={"Digit": classes.tolist()})


MUTABLE = {
    EVERY: (
        Attribute("x", 0, 1),
        Attribute("y", 0, 1),
        Attribute("angle", -math.pi, math.pi, periodic=True),
    )
}
"""What may be learned of digits: where they stand, and how they are turned where the renderer turns them."""
ROW_ENDS = 0.3
"""Share of the canvas at either end within which a row of digits begins and ends."""


class UniformPlacement(ParameterPrior):
    """The paper's prior of parameters: digits anywhere on the canvas, upright.

    Args:
        max_angle: Greatest turn to either side, in degrees.
        image_range: Which share of each class's pictures to use, from and to.
        row_fraction: Share of scenes whose digits stand in a row instead, with even gaps, in any direction: to train
            extractors on, which are to count alike in any layout. The paper has none.
    """

    mutable = MUTABLE

    def __init__(
        self, max_angle: float = 0.0, image_range: tuple[float, float] = (0.0, 1.0), row_fraction: float = 0.0
    ) -> None:
        if not 0 <= max_angle <= 180:
            raise UserError(f"max_angle must lie between 0 and 180 degrees, not be {max_angle}")
        if not 0 <= row_fraction <= 1:
            raise UserError(f"row_fraction is a share of scenes, between 0 and 1, and can't be {row_fraction}")
        self.max_angle, self.image_range, self.row_fraction = max_angle, _checked_range(image_range), row_fraction

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Place, angle and picture of each digit, independent of one another."""
        turn = torch.pi * self.max_angle / 180
        placed = scenes.with_attributes(
            x=sample_uniform(scenes, 0, 1, generator),
            y=sample_uniform(scenes, 0, 1, generator),
            angle=sample_uniform(scenes, -turn, turn, generator),
            example=sample_uniform(scenes, *self.image_range, generator),
        )
        return self._lined_up(placed, generator) if self.row_fraction else placed

    def _lined_up(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Move the digits of some scenes into rows, from near one edge of the canvas to near the opposite one."""
        device = scenes.classes.device
        row_fraction, across, start, end, left, right = torch.rand(
            6, len(scenes), 1, generator=generator, device=device
        )
        steps = (scenes.mask.sum(1, keepdim=True) - 1).clamp(min=1)
        share = torch.arange(scenes.classes.shape[1], device=device) / steps
        along, aside = ROW_ENDS * start + (1 - ROW_ENDS * (start + end)) * share, left + (right - left) * share
        horizontal = across < 0.5
        x, y = torch.where(horizontal, along, aside), torch.where(horizontal, aside, along)
        moved = (row_fraction < self.row_fraction) & scenes.mask
        of = scenes.attributes
        return scenes.with_attributes(x=torch.where(moved, x, of["x"]), y=torch.where(moved, y, of["y"]))


class NormalPlacement(ParameterPrior):
    """Digits about one place and one angle, normally distributed, as for Meta-Sim's experiments with one digit.

    Args:
        x: Mean and standard deviation of the place from left to right, as a share of the way.
        y: The same from top to bottom.
        angle: The same of the angle in degrees, counter-clockwise.
        image_range: Which share of each class's pictures to use, from and to.
    """

    mutable = MUTABLE

    def __init__(
        self,
        x: tuple[float, float] = (0.5, 0.05),
        y: tuple[float, float] = (0.5, 0.05),
        angle: tuple[float, float] = (0.0, 15.0),
        image_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        for name, (_, deviation) in (("x", x), ("y", y), ("angle", angle)):
            if deviation < 0:
                raise UserError(f"{name} is a mean and a standard deviation, which can't be {deviation}")
        self.x, self.y, self.angle, self.image_range = x, y, angle, _checked_range(image_range)

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Place, angle and picture of each digit, independent of one another; places beyond the canvas at its edge."""

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
    """The target's layout: digits upright, evenly spaced on a straight line across the middle.

    On a canvas of at least ten and a half digits' width, ten of them stand side by side without overlap.

    Args:
        image_range: Which share of each class's pictures to use, from and to.
    """

    mutable = MUTABLE

    def __init__(self, image_range: tuple[float, float] = (0.0, 1.0)) -> None:
        self.image_range = _checked_range(image_range)

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Place n digits a step apart, with a quarter of a step free at either end; only the pictures are random."""
        number = scenes.mask.sum(1, keepdim=True).clamp(min=1)
        place = torch.arange(scenes.classes.shape[1], device=number.device)
        x = torch.where(number == 1, 0.5, (place + 0.25) / (number - 0.5)).clamp(max=1)
        return scenes.with_attributes(
            x=x,
            y=torch.full_like(x, 0.5),
            angle=torch.zeros_like(x),
            example=sample_uniform(scenes, *self.image_range, generator),
        )


def _checked_range(image_range: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= image_range[0] < image_range[1] <= 1:
        raise UserError(f"image_range must be a share of the pictures, from and to, within 0 and 1, not {image_range}")
    return image_range
