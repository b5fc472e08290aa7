"""Distances to the target as torchmetrics: they accumulate scenes batch by batch and process by process."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor
from torchmetrics import Metric

from ms2.metrics.attribute_distances import AttributeSample, attribute_w1
from ms2.metrics.histograms import distribution, total_variation


def sum_padded(rows: Sequence[Real[Tensor, " _"]]) -> Real[Tensor, " k"]:
    """Sum vectors of different lengths, where missing entries are 0."""
    width = max(len(row) for row in rows)
    return torch.stack([F.pad(row, (0, width - len(row))) for row in rows]).sum(0)


class TotalVariation(Metric):
    """Total variation between the histogram of all scenes so far and the target's.

    Every process must call `update` at least once, if with no scenes.

    Args:
        target: Counts that each of the target's scenes adds to each bin.

    Example:
        >>> metric = TotalVariation(statistic.measure(target.truth, class_names))
        >>> metric.update(statistic.measure(scenes, class_names))
        >>> metric.compute()
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    counts: list[Tensor]
    target: Tensor

    def __init__(self, target: Int[Tensor, "m j"]) -> None:
        super().__init__()
        self.add_state("counts", [], dist_reduce_fx=lambda parts: [sum_padded(parts)])
        self.register_buffer("target", target.sum(0).double(), persistent=False)

    def update(self, counts: Int[Tensor, "n k"]) -> None:
        """Add scenes; the number of bins may differ between calls."""
        self.counts = [sum_padded([*self.counts, counts.sum(0).to(self.target)])]

    def compute(self) -> Float[Tensor, ""]:
        """Compute the total variation, 0..1."""
        both = [sum_padded(self.counts), self.target]
        width = max(len(row) for row in both)
        p, q = (distribution(F.pad(row, (0, width - len(row)))[None]) for row in both)
        return total_variation(p, q)


class AttributeWasserstein(Metric):
    """Wasserstein distance between the attribute values of all scenes so far and the target's.

    Every process must call `update` at least once, if with no values.

    Args:
        target: The target's values.
        period: Circumference, for values on a circle.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    values: list[Tensor]
    target: Tensor

    def __init__(self, target: Float[Tensor, " m"], period: float | None = None) -> None:
        super().__init__()
        self.period = period
        self.add_state("values", [], dist_reduce_fx="cat")
        self.register_buffer("target", target.double(), persistent=False)

    def update(self, sample: AttributeSample) -> None:
        """Add the values of scenes."""
        self.values.append(sample.values.to(self.target))

    def compute(self) -> Float[Tensor, ""]:
        """Compute W1 in the values' unit; NaN without values."""
        # torchmetrics makes one tensor of the list when it gathers the values of several processes
        values = torch.cat(self.values) if isinstance(self.values, list) else self.values  # type: ignore[redundant-expr]
        return torch.tensor(attribute_w1(values, self.target, self.period), dtype=torch.double)
