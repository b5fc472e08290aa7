"""Energy distance between sets of structure vectors, with bootstrap intervals and a noise floor."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ms2.metrics.bootstrap import basic_interval, check_options, resampled_counts
from ms2.metrics.intervals import Interval

MAX_DISTANCES_PER_CHUNK = 2_000_000
"""Distances between rows held at once: 8 bytes each, so 16 MB."""


class _UniqueRows(NamedTuple):
    """Two sets of vectors as their u different rows, and how often each set has each of them.

    Double precision throughout: near 0 the distance is the small difference of large means.
    """

    points: Float[Tensor, "u d"]
    times: tuple[Float[Tensor, " u"], Float[Tensor, " u"]]


def energy_distance(x: Real[Tensor, "n d"], y: Real[Tensor, "m e"]) -> float:
    """Compute the energy distance of two samples of vectors, in their unit: sqrt(2 E|X-Y| - E|X-X'| - E|Y-Y'|).

    Székely and Rizzo 2013, "Energy statistics", with Euclidean norms; both have as many columns (e = d). The means
    within a set leave out the pairs of a row with itself, so the estimate of the square has no bias; where it comes out
    negative, the distance is 0.

    ValueError for fewer than two rows, no columns, numbers of columns that differ, or entries that are not finite.
    """
    unique = _unique_rows(x, y, x.device)
    times_x, times_y = unique.times
    return float(_root(_energy_squared(unique.points, times_x[None], times_y[None], len(x), len(y))))


def compare_vectors(
    generated: Real[Tensor, "n d"],
    target: Real[Tensor, "m e"],
    *,
    generator: torch.Generator,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """Compute the energy distance of two sets of vectors, a row per scene, with a bootstrap interval.

    `value` is the `energy_distance` of the two full samples. The interval holds the distance of the underlying laws
    with probability of about `level`, near 0 more often, where it begins at 0. Scenes of both sets are resampled; the
    work is done on the generator's device. The distances between rows are computed once for all resamples, and between
    different rows only: many scenes have the same structure.

    It is the basic bootstrap of the squared distance, which is smooth at 0, so unlike in `compare_histograms` nothing
    has to be taken as equal: the error (resampled - mean of the resampled) replaces (measured - true). That mean is
    known: a resample is drawn from the empirical distributions, whose squared distance counts the pairs of a row with
    itself.

    ValueError as in `energy_distance`, for `resamples` < 1 or `level` outside (0, 1).
    """
    check_options(resamples, level)
    unique = _unique_rows(generated, target, generator.device)
    sizes = (len(generated), len(target))
    drawn = [
        _multiplicities(times, size, resamples, generator) for times, size in zip(unique.times, sizes, strict=True)
    ]
    # the last row is the sample itself
    both = [torch.cat([rows, times[None]]) for rows, times in zip(drawn, unique.times, strict=True)]
    cross, within_x, within_y = _mean_distances(unique.points, *both)
    squares = 2 * cross - _unbiased(within_x, sizes[0]) - _unbiased(within_y, sizes[1])
    empirical = (2 * cross - within_x - within_y)[-1]
    square, error = squares[-1], squares[:-1] - empirical
    value = _root(square)
    low, high = (_root(end) for end in basic_interval(square, error, level))
    return Interval(float(value), float(low.minimum(value)), float(high.maximum(value)))


def vector_noise_floor(
    target: Real[Tensor, "m d"], n: int, *, generator: torch.Generator, resamples: int = 200
) -> float:
    """Estimate the noise floor: mean energy distance of n to m rows, both bootstrapped from the m rows of the target.

    This is what a perfect model shows when n of its scenes are compared with the m of the target, as in
    `histogram_noise_floor`.

    ValueError as in `energy_distance`, for n < 2 or `resamples` < 1.
    """
    if n < 2 or resamples < 1:
        raise ValueError(
            f"n={n} and resamples={resamples} were given, but n must be at least 2, since rows of one set are compared "
            "in pairs, and resamples at least 1: raise them."
        )
    unique = _unique_rows(target, target, generator.device)
    m = len(target)
    xs, ys = (_multiplicities(unique.times[1], size, resamples, generator) for size in (n, m))
    return float(_root(_energy_squared(unique.points, xs, ys, n, m)).mean())


def _unique_rows(x: Real[Tensor, "n d"], y: Real[Tensor, "m e"], device: torch.device) -> _UniqueRows:
    """The checked sets on a device."""
    for name, rows in (("the first set", x), ("the second set", y)):
        if rows.shape[0] < 2 or rows.shape[1] == 0:
            raise ValueError(
                f"{name} has shape {list(rows.shape)}, but at least two scenes (rows), which are compared in pairs, "
                "and one number per scene (column) are needed: pass more scenes."
            )
        if not bool(rows.isfinite().all()):
            raise ValueError(f"{name} has an entry that is not finite, so it has no distance: check the vectors.")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"the vectors have {x.shape[1]} and {y.shape[1]} numbers, but only vectors with the same meaning can be "
            "compared: compute the same ones for both sets."
        )
    points, place = torch.cat([x.to(device).double(), y.to(device).double()]).unique(dim=0, return_inverse=True)
    times_x, times_y = (torch.bincount(p, minlength=len(points)).double() for p in place.split([len(x), len(y)]))
    return _UniqueRows(points, (times_x, times_y))


def _multiplicities(
    times: Float[Tensor, " u"], n: int, resamples: int, generator: torch.Generator
) -> Float[Tensor, "{resamples} u"]:
    """How often `resamples` sets of n rows, drawn with replacement, have each of the u different rows."""
    row = torch.arange(len(times), device=times.device).repeat_interleave(times.long())
    return torch.cat(list(resampled_counts(len(row), n, resamples, generator, group=row, num_groups=len(times))))


def _mean_distances(
    points: Float[Tensor, "u d"], times_x: Float[Tensor, "r u"], times_y: Float[Tensor, "r u"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Mean distance between x and y, within x and within y, the pairs of a row with itself included."""
    x, y = (times / times.sum(1, keepdim=True) for times in (times_x, times_y))
    cross, within_x, within_y = (points.new_zeros(len(x)) for _ in range(3))
    # A few rows of the u x u distances at a time: with 10,000 different rows in each set, all of them take 3.2 GB.
    step = max(1, MAX_DISTANCES_PER_CHUNK // len(points))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        # Not by way of a matrix product, which rounds the distance of a row to itself to about 1e-7.
        distances = torch.cdist(points[part], points, compute_mode="donot_use_mm_for_euclid_dist")
        to_x, to_y = x @ distances.T, y @ distances.T
        cross += (y[:, part] * to_x).sum(1)
        within_x += (x[:, part] * to_x).sum(1)
        within_y += (y[:, part] * to_y).sum(1)
    return cross, within_x, within_y


def _unbiased(within: Float[Tensor, " r"], n: int) -> Float[Tensor, " r"]:
    """The mean over pairs of different rows, from that over all n^2 pairs, with n self-pairs of distance 0."""
    return within * n / (n - 1)


def _energy_squared(
    points: Float[Tensor, "u d"], times_x: Float[Tensor, "r u"], times_y: Float[Tensor, "r u"], n: int, m: int
) -> Float[Tensor, " r"]:
    """Unbiased estimates of the squared energy distance, which may be negative."""
    cross, within_x, within_y = _mean_distances(points, times_x, times_y)
    return 2 * cross - _unbiased(within_x, n) - _unbiased(within_y, m)


def _root(square: Float[Tensor, "*r"]) -> Float[Tensor, "*r"]:
    return square.clamp(min=0).sqrt()
