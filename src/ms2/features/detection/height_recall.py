"""How many of the objects of a height a detector finds: curves by class, their fit, and readings drawn from them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ms2.core.bounds import Fraction, NonNegativeFloat, PositiveFloat
from ms2.core.errors import UserError
from ms2.core.settings import Configured

MAX_SLOPE = 20.0
"""Largest slope that is fitted: with it, recall rises from a tenth to nine tenths within a quarter of the height."""
PRIOR_STD = 2.0
"""Standard deviation of the logits of the ceiling and of the slope over its largest value, and of the half height's
logarithm, around the start of the fit: what the objects do not determine stays near it."""
FIT_STEPS = 100
"""Iterations of the fit (L-BFGS)."""


class RecallCurve(NamedTuple):
    """Recall as a function of an object's height h: ceiling / (1 + (half_height / h)^slope).

    Attributes:
        ceiling: Recall of the highest objects.
        half_height: Height in pixels at which recall is half of that.
        slope: Slope of the log-odds of recall relative to the ceiling, by the logarithm of the height.
    """

    ceiling: float
    half_height: float
    slope: float


class RecallByHeight(Configured):
    """Errors of a detector's counts by class: recall as a logistic curve of log height, and false boxes.

    An object of height h that can be seen is found with the probability of its class's `RecallCurve`, whatever else
    there is; boxes that show no object are Poisson distributed. Confusion of classes is counted as an object that is
    not found and a false box. Not in the paper.

    Args:
        ceiling: Recall of the highest objects, by class.
        half_height: Height in pixels at which recall is half of that, by class.
        slope: Slope of the curve, by class.
        false_boxes: Mean number of false boxes in an image, by class.

    Raises:
        UserError: If the four name different classes.

    Example:
        >>> recall = RecallByHeight({"car": 1.0}, {"car": 20.0}, {"car": 2.0}, {"car": 0.0})
        >>> recall.probability(["car"], torch.tensor([[0, 0, -1]]), torch.tensor([[20.0, 40.0, 40.0]]))
        tensor([[0.5000, 0.8000, 0.0000]])
    """

    def __init__(
        self,
        ceiling: dict[str, Fraction],
        half_height: dict[str, PositiveFloat],
        slope: dict[str, PositiveFloat],
        false_boxes: dict[str, NonNegativeFloat],
    ) -> None:
        self._columns: dict[tuple[str, tuple[str, ...], torch.device], Tensor] = {}
        self.numbers: dict[str, Mapping[str, float]] = {
            "ceiling": ceiling,
            "half_height": half_height,
            "slope": slope,
            "false_boxes": false_boxes,
        }
        for name, some in self.numbers.items():
            if set(some) != set(ceiling):
                raise UserError(
                    f"recall.ceiling has classes {', '.join(ceiling)}, but recall.{name} has {', '.join(some)}: name "
                    "the same classes in all four, as 'ms2 probe' prints them"
                )

    def check(self, names: Sequence[str]) -> None:
        """Check that there is a curve of each class.

        Raises:
            UserError: If a class has none.
        """
        missing = [name for name in names if name not in self.numbers["ceiling"]]
        if missing:
            raise UserError(
                f"features.recall has no numbers of {', '.join(missing)}, which the detector counts: 'ms2 probe' "
                "measures those of all classes"
            )

    def probability(
        self, names: Sequence[str], classes: Int[Tensor, "b n"], heights: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        """Compute the probability that each object is found.

        Args:
            names: Names of classes.
            classes: Index of each object's class among them; -1 for those that are not found.
            heights: Heights in pixels.
        """
        ceiling, half_height, slope = (
            self._column(key, names, heights.device)[classes] for key in ("ceiling", "half_height", "slope")
        )
        found = ceiling * torch.sigmoid(slope * (heights.clamp(min=1e-3) / half_height).log())
        return found.where(classes >= 0, 0)

    def found(
        self,
        names: Sequence[str],
        classes: Int[Tensor, "b n"],
        heights: Float[Tensor, "b n"],
        generator: Generator,
    ) -> Bool[Tensor, "b n"]:
        """Draw which objects a detector finds; arguments as of `draw`."""
        chance = torch.rand(heights.shape, generator=generator, device=heights.device)
        return chance < self.probability(names, classes, heights)

    def draw(
        self,
        names: Sequence[str],
        classes: Int[Tensor, "b n"],
        heights: Float[Tensor, "b n"],
        generator: Generator,
    ) -> Int[Tensor, "b k"]:
        """Draw how many boxes of each of k classes a detector finds.

        Args:
            names: Names of the k classes.
            classes: Index of each object's class among them; -1 for those that are not found.
            heights: Heights in pixels.
            generator: Draws who is found, and the false boxes.
        """
        is_found = self.found(names, classes, heights, generator)
        return self.count(names, classes.where(is_found, -1), generator)

    def count(self, names: Sequence[str], found: Int[Tensor, "b n"], generator: Generator) -> Int[Tensor, "b k"]:
        """Count the boxes of each of k classes: of the objects that are found, and false ones, which are drawn.

        Args:
            names: Names of the k classes.
            found: Index of the class among them of each object that is found; -1 for others.
            generator: Draws the false boxes.
        """
        one_hot = found.unsqueeze(2) == torch.arange(len(names), device=found.device)
        rate = self._column("false_boxes", names, found.device).expand(len(found), -1)
        return one_hot.sum(1) + torch.poisson(rate, generator).long()

    def _column(self, key: str, names: Sequence[str], device: torch.device) -> Float[Tensor, " k"]:
        """Return numbers of classes on a device; each is copied there once, as a copy waits for it."""
        place = (key, tuple(names), device)
        if place not in self._columns:
            self._columns[place] = torch.tensor([self.numbers[key][name] for name in names], device=device)
        return self._columns[place]


@torch.enable_grad()
def fit_recall(heights: Float[Tensor, " o"], found: Bool[Tensor, " o"], min_height: float) -> RecallCurve:
    """Fit a curve to objects that are found or not, by maximum a posteriori with a weak prior (`PRIOR_STD`).

    Args:
        heights: Heights of the objects in pixels.
        found: Whether each is found.
        min_height: Height near which the curve starts: the half height of the prior is half of it.
    """
    start = torch.tensor([1.0, max(min_height, 2.0) / 2, -2.0], dtype=torch.float64)
    start[1] = start[1].log()
    free = start.clone().requires_grad_()
    log_heights, target = heights.double().clamp(min=1e-3).log(), found.double()

    def parts() -> tuple[Tensor, Tensor, Tensor]:
        return free[0].sigmoid(), free[1], MAX_SLOPE * free[2].sigmoid()

    def loss() -> Tensor:
        ceiling, half, slope = parts()
        p = (ceiling * torch.sigmoid(slope * (log_heights - half))).clamp(1e-9, 1 - 1e-9)
        likelihood = (target * p.log() + (1 - target) * (-p).log1p()).sum()
        cost = 0.5 * ((free - start) / PRIOR_STD).square().sum() - likelihood
        optimizer.zero_grad()
        cost.backward()
        return cost

    optimizer = torch.optim.LBFGS([free], max_iter=FIT_STEPS, line_search_fn="strong_wolfe")
    optimizer.step(loss)
    ceiling, half, slope = (float(part.detach()) for part in parts())
    return RecallCurve(ceiling, float(torch.tensor(half).exp()), slope)
