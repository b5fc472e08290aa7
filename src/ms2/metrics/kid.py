"""Kernel inception distance, with bootstrap intervals (Bińkowski et al., 2018)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.metrics.bootstrap import basic_interval, resampled_counts
from ms2.metrics.intervals import Interval, PriorAndLearned

LEVEL = 0.95
"""Confidence of the intervals."""
MAX_KERNEL_VALUES_PER_CHUNK = 4_000_000
"""Kernel values held at once: 8 bytes each, so 32 MB."""


def kid(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Compute the unbiased squared MMD of two sets of features with the kernel (x·y / d + 1)^3; it may be negative."""
    once = [_Sample(s.double(), torch.ones(1, len(s), dtype=torch.float64)) for s in (x, y)]
    return float(_within(once[0])[0] + _within(once[1])[0] - 2 * _cross(*once))


def kid_intervals(
    prior: Float[Tensor, "n d"],
    learned: Float[Tensor, "k d"],
    real: Float[Tensor, "m d"],
    resamples: int,
    generator: torch.Generator,
) -> PriorAndLearned:
    """Compute the KID of the prior's and the learned model's images to the target's, and its change, with intervals.

    The intervals are of the basic bootstrap over images; both distances share the resamples of the target's images.
    """
    target = _resampled(real, resamples, generator)
    (value, error), (before, error_before) = (
        _value_and_error(_resampled(x, resamples, generator), target) for x in (learned, prior)
    )
    change = None
    interval, interval_before = _interval(value, error), _interval(before, error_before)
    draws, draws_before = value - error, before - error_before
    if interval_before.low > 0 and bool((draws_before > 0).all()):
        relative = value / before - 1
        change = _interval(relative, relative - (draws / draws_before - 1))
    return PriorAndLearned(interval, interval_before, change)


class _Sample(NamedTuple):
    """Features of images, and how often each of them is in each of r resamples."""

    features: Float[Tensor, "n d"]
    counts: Float[Tensor, "r n"]


def _resampled(features: Float[Tensor, "n d"], resamples: int, generator: torch.Generator) -> _Sample:
    counts = resampled_counts(len(features), len(features), resamples, generator)
    return _Sample(features, torch.cat([part.cpu() for part in counts]))


def _value_and_error(sample: _Sample, real: _Sample) -> tuple[float, Float[Tensor, " r"]]:
    """KID, and the error of each resample.

    A resample follows the empirical distributions, whose squared MMD counts the pairs of an image with itself and is
    known; its error is its own unbiased estimate less that, as in `ms2.metrics.vectors.compare_vectors`.
    """
    (within, law), (real_within, real_law) = _within(sample), _within(real)
    once = [_Sample(s.features, torch.ones(1, len(s.features), dtype=torch.float64)) for s in (sample, real)]
    error = within + real_within - 2 * _cross(sample, real) - (law + real_law - 2 * _cross(*once))
    return kid(sample.features, real.features), error


def _within(sample: _Sample) -> tuple[Float[Tensor, " r"], float]:
    """Mean kernel over pairs of different members of each resample; over all pairs of the sample, self-pairs too."""
    x, counts = sample
    n, total, mean, itself = len(x), torch.zeros(len(counts), dtype=torch.float64), 0.0, []
    for part in _parts(n, n):
        kernel = _kernel(x[part], x)
        total += ((counts @ kernel.T) * counts[:, part]).sum(1)
        mean += float(kernel.sum()) / n**2
        itself.append(kernel.diagonal(part.start))
    return (total - counts @ torch.cat(itself)) / (n * (n - 1)), mean


def _cross(a: _Sample, b: _Sample) -> Float[Tensor, " r"]:
    """Mean kernel between two sets, for each resample."""
    total = torch.zeros(len(a.counts), dtype=torch.float64)
    for part in _parts(len(a.features), len(b.features)):
        total += ((b.counts @ _kernel(a.features[part], b.features).T) * a.counts[:, part]).sum(1)
    return total / (len(a.features) * len(b.features))


def _kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    from torchmetrics.image.kid import poly_kernel  # takes seconds to import

    return poly_kernel(x, y)


def _parts(rows: int, columns: int) -> list[slice]:
    step = max(1, MAX_KERNEL_VALUES_PER_CHUNK // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _interval(value: float, error: Float[Tensor, " r"]) -> Interval:
    low, high = basic_interval(torch.tensor(value, dtype=torch.float64), error, LEVEL)
    return Interval(value, min(float(low), value), max(float(high), value))
