"""Kernel inception distance, with bootstrap intervals (Bińkowski et al., 2018)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.metrics.intervals import Found, Interval

LEVEL = 0.95
CHUNK = 4_000_000
"""Kernel values held at once: 8 bytes each, so 32 MB."""


def kid(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Squared MMD of two sets with the kernel (x·y / d + 1)^3, without bias, so it may be negative."""
    once = [_Sample(s.double(), torch.ones(1, len(s), dtype=torch.float64)) for s in (x, y)]
    return float(_within(once[0])[0] + _within(once[1])[0] - 2 * _cross(*once))


# --- KID ---


class _Sample(NamedTuple):
    """Features of images, and how often each of them is in each of r resamples."""

    features: Float[Tensor, "n d"]
    counts: Float[Tensor, "r n"]


def _kids(
    prior: Float[Tensor, "n d"],
    learned: Float[Tensor, "k d"],
    real: Float[Tensor, "m d"],
    resamples: int,
    generator: torch.Generator,
) -> Found:
    target = _Sample(real, _multiplicities(len(real), resamples, generator))
    (value, draws), (before, draws_before) = (
        _kid_draws(_Sample(x, _multiplicities(len(x), resamples, generator)), target) for x in (learned, prior)
    )
    interval, interval_before = _interval(value, draws), _interval(before, draws_before)
    if interval_before.low <= 0 or not bool((draws_before > 0).all()):
        return interval, interval_before, None
    return interval, interval_before, _interval(value / before - 1, draws / draws_before - 1)


def _kid_draws(sample: _Sample, real: _Sample) -> tuple[float, Float[Tensor, " r"]]:
    """The value, and draws about it.

    A resample follows the empirical laws, whose squared MMD counts the pairs of an image with itself and is known:
    a resample's error is its own unbiased estimate less that, and a draw is the value less the error (the basic
    bootstrap, as in `ms2.metrics.vectors.compare_vectors`).
    """
    (within, law), (real_within, real_law) = _within(sample), _within(real)
    once = [_Sample(s.features, torch.ones(1, len(s.features), dtype=torch.float64)) for s in (sample, real)]
    error = within + real_within - 2 * _cross(sample, real) - (law + real_law - 2 * _cross(*once))
    value = kid(sample.features, real.features)
    return value, value - error


def _within(sample: _Sample) -> tuple[Float[Tensor, " r"], float]:
    """Mean kernel of different members of each resample, and of all pairs of the sample itself."""
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
    step = max(1, CHUNK // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _multiplicities(n: int, resamples: int, generator: torch.Generator) -> Float[Tensor, "r n"]:
    """How often resamples of n images have each of them."""
    drawn = torch.randint(n, (resamples, n), generator=generator, device=generator.device).cpu()
    ones = torch.ones((), dtype=torch.float64).expand(resamples, n)
    return torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, drawn, ones)


def _interval(value: float, draws: Float[Tensor, " r"]) -> Interval:
    """Quantiles of the draws. The upper end takes the larger of the two tails, as squares are skewed near 0."""
    low, high = (float(draws.quantile(q)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(value, min(low, value), max(high, 2 * value - low, value))
