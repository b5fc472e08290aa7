"""Wasserstein distances between distributions of attributes, with bootstrap intervals and a noise floor."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from ms2.metrics.bootstrap import check_options, convex_interval, resampled_counts, zero_insignificant
from ms2.metrics.intervals import Interval

MAX_VALUES_PER_CHUNK = 2**18
"""Values in a chunk of resamples: 8 bytes each, so 2 MB, which stay in a core's cache."""
WEIGHTED_MEDIAN_BINS = 1024
"""Bins of the range in which a weighted median is searched, so that the values of one bin alone are sorted."""


class AttributeSample(NamedTuple):
    """Values of one attribute over a set of scenes, with the scene of each value.

    Attributes:
        values: The values, in the attribute's unit, in double precision.
        scene: Index of the scene of each value, from 0.
        num_scenes: Number of scenes, with those that have no value.
    """

    values: Float[Tensor, " k"]
    scene: Int[Tensor, " k"]
    num_scenes: int


def wasserstein_1d(
    x: Real[Tensor, " n"],
    y: Real[Tensor, " m"],
    weights_x: Real[Tensor, " n"] | None = None,
    weights_y: Real[Tensor, " m"] | None = None,
) -> float:
    """Compute the exact W1 distance of two weighted samples on a line, in their unit (Vallender 1974).

    It is the area between their CDFs. Weights, by default equal, need not sum to 1. NaN where a sample has no values.
    ValueError for values that are not finite, and for weights that are negative, not finite or all 0.
    """
    return _wasserstein(x, y, weights_x, weights_y, None)


def circular_wasserstein(
    x: Real[Tensor, " n"],
    y: Real[Tensor, " m"],
    period: float,
    weights_x: Real[Tensor, " n"] | None = None,
    weights_y: Real[Tensor, " m"] | None = None,
) -> float:
    """Compute the exact W1 distance of two weighted samples on a circle of circumference `period`.

    The ground distance is the shorter arc. With F and G the CDFs from any point of the circle on, W1 is the integral of
    |F - G - c|, where c is the median of F - G weighted by length (Rabin, Delon and Gousseau 2011, "Transportation
    Distances on the Circle"). It is at most half the period. Values outside of one period are brought into it.
    Otherwise as `wasserstein_1d`.
    """
    return _wasserstein(x, y, weights_x, weights_y, period)


def attribute_w1(x: Real[Tensor, " n"], y: Real[Tensor, " m"], period: float | None) -> float:
    """Compute W1 on a line, or on a circle if a period is given."""
    return _wasserstein(x, y, None, None, period)


def compare_attributes(
    generated: AttributeSample,
    target: AttributeSample,
    period: float | None,
    *,
    generator: torch.Generator,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """Compute W1 between the attribute values of two sets of scenes, with a bootstrap interval over scenes.

    `period` is that of `circular_wasserstein`, or None for a line. `value` is the distance of the two full samples, in
    their unit; all are NaN where either has no values. The interval holds the distance of the underlying distributions
    with probability of about `level`, near 0 more often. Resamples without a value are drawn again. The work is done on
    the generator's device.

    The interval is that of `compare_histograms` for its `wasserstein`: `convex_interval`, with differences F - G that
    may be noise taken as 0 (`bootstrap.excess`, computed here in two passes over the resamples).

    ValueError for values that are not finite, scene numbers outside of the sets, `resamples` < 1 or `level` outside
    (0, 1).
    """
    check_options(resamples, level)
    x, y = (_checked(name, one, generator.device) for name, one in (("generated", generated), ("target", target)))
    if not len(x.values) or not len(y.values):
        return Interval(math.nan, math.nan, math.nan)
    line = _sorted_values(torch.cat([x.values, y.values]), period)
    scene = torch.cat([x.scene, y.scene + x.num_scenes])[line.order]
    counts = [torch.bincount(one.scene, minlength=one.num_scenes) for one in (x, y)]
    times = [_resample_scenes(count, len(count), resamples, generator) for count in counts]

    def masses(p: Float[Tensor, "r n"], q: Float[Tensor, "r m"]) -> Float[Tensor, "r n+m"]:
        """Compute the probability mass of each value, with a column per scene; negated for the target's scenes."""
        return torch.cat([_mass_per_value(p, counts[0]), -_mass_per_value(q, counts[1])], 1)

    (difference,) = line.cdf_differences(masses(*(torch.ones_like(t[:1]) for t in times)), scene)
    value, drawn = line.integrate(difference)[0], masses(*times)
    resampled, square = [], torch.zeros_like(difference[0])
    for differences in line.cdf_differences(drawn, scene):
        resampled.append(line.integrate(differences))
        square += (differences - difference).square().sum(0)
    centre = zero_insignificant(difference, square / resamples)
    raised = [
        line.integrate(line.subtract_median(centre + differences - difference))
        for differences in line.cdf_differences(drawn, scene)
    ]
    excess = torch.cat(raised) - line.integrate(line.subtract_median(centre))
    return convex_interval(value, torch.cat(resampled), excess, level)


def attribute_noise_floor(
    target: AttributeSample,
    num_scenes: int,
    period: float | None,
    *,
    generator: torch.Generator,
    resamples: int = 100,
) -> float:
    """Estimate the noise floor: mean W1 of n scenes to as many as the target has, both bootstrapped from the target.

    This is what a perfect model shows when so many of its scenes are compared with the target's, which are a sample too
    (`histogram_noise_floor`), in the unit of the values; arguments as in `compare_attributes`. NaN where the target has
    no values. Resamples without a value are drawn again. ValueError as there, and if there are no scenes.
    """
    if num_scenes < 1 or resamples < 1:
        raise ValueError(
            f"num_scenes={num_scenes} and resamples={resamples} were given, but both must be at least 1: raise them."
        )
    y = _checked("target", target, generator.device)
    if not len(y.values):
        return math.nan
    line = _sorted_values(y.values, period)
    counts = torch.bincount(y.scene, minlength=y.num_scenes)
    times = (_resample_scenes(counts, size, resamples, generator) for size in (num_scenes, y.num_scenes))
    x, z = (_mass_per_value(one, counts) for one in times)
    differences = line.cdf_differences(x - z, y.scene[line.order])
    return float(torch.cat([line.integrate(part) for part in differences]).mean())


class _SortedValues(NamedTuple):
    """Sorted values on a line or a circle.

    Attributes:
        order: Their indices, by place.
        lengths: From each to the next. The last has 0 on a line, and the arc to the first on a circle.
        circular: Whether it is a circle.
    """

    order: Int[Tensor, " k"]
    lengths: Float[Tensor, " k"]
    circular: bool

    def cdf_differences(
        self, masses: Float[Tensor, "r s"], mass_index: Int[Tensor, " k"]
    ) -> Iterator[Float[Tensor, "c k"]]:
        """Compute F - G on each interval between sorted values, less its median on a circle, a few resamples at a time.

        `masses` are the probabilities of single values, of F less G, a row per resample; `mass_index` is the column of
        each sorted value.
        """
        for part in masses.split(max(1, MAX_VALUES_PER_CHUNK // len(mass_index))):
            yield self.subtract_median(part[:, mass_index].cumsum(1))

    def subtract_median(self, differences: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
        """Subtract the weighted median on a circle; return the differences unchanged on a line."""
        if not self.circular:
            return differences
        return differences - torch.stack([_weighted_median(row, self.lengths) for row in differences])[:, None]

    def integrate(self, differences: Float[Tensor, "r k"]) -> Float[Tensor, " r"]:
        """Integrate |F - G|."""
        return differences.abs() @ self.lengths


def _sorted_values(values: Float[Tensor, " k"], period: float | None) -> _SortedValues:
    if period is not None and not 0 < period < math.inf:
        raise ValueError(f"period={period} was given, but a circle has a positive circumference: 360 for degrees.")
    places, order = (values if period is None else values % period).sort(stable=True)
    end = places[-1:] if period is None else places[:1] + period
    return _SortedValues(order, torch.diff(places, append=end), period is not None)


def _weighted_median(values: Float[Tensor, " k"], weights: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """The least value at or below which lies half of the weight.

    Sorting all of a resample would take longer than all else together: 80,000 values take 5 ms, and 0.5 ms this way.
    """
    low, high = values.aminmax()
    if low == high:
        return low
    part = ((values - low) / (high - low) * (WEIGHTED_MEDIAN_BINS - 1)).long()
    below = weights.new_zeros(WEIGHTED_MEDIAN_BINS).index_add_(0, part, weights).cumsum(0)
    half = below[-1:] / 2
    middle = torch.searchsorted(below, half)
    inside = (part == middle).nonzero()[:, 0]
    found, order = values[inside].sort()
    reached = weights[inside][order].cumsum(0) + torch.where(middle > 0, below[middle - 1], 0.0)
    # rounding may leave the last one short of half
    return found[torch.searchsorted(reached, half).clamp(max=len(found) - 1)][0]


def _wasserstein(
    x: Real[Tensor, " n"],
    y: Real[Tensor, " m"],
    weights_x: Real[Tensor, " n"] | None,
    weights_y: Real[Tensor, " m"] | None,
    period: float | None,
) -> float:
    sides = []
    for name, values, weights in (("x", x, weights_x), ("y", y, weights_y)):
        weights = torch.ones_like(values) if weights is None else weights
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} has a value that is not finite, so it has no distance: check the values.")
        if len(values) and not (bool(((weights >= 0) & weights.isfinite()).all()) and bool(weights.any())):
            raise ValueError(
                f"weights_{name} has an entry that is negative or not finite, or none above 0: give each value the "
                "share of the whole that it stands for."
            )
        sides.append((values.double(), weights.double() / weights.double().sum()))
    (x, p), (y, q) = sides
    if not len(x) or not len(y):
        return math.nan
    line = _sorted_values(torch.cat([x, y]), period)
    (difference,) = line.cdf_differences(torch.cat([p, -q])[None], line.order)
    return float(line.integrate(difference))


def _checked(name: str, sample: AttributeSample, device: torch.device) -> AttributeSample:
    """The sample on a device, in double precision."""
    values, scene, num = sample.values.to(device).double(), sample.scene.to(device), sample.num_scenes
    if len(values) != len(scene):
        raise ValueError(
            f"{name} has {len(values)} values from {len(scene)} scenes, but each needs its scene's number."
        )
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name} has a value that is not finite, so it has no distance: check the statistic.")
    if len(scene) and not 0 <= int(scene.min()) <= int(scene.max()) < num:
        raise ValueError(
            f"{name} has values of scenes {int(scene.min())}..{int(scene.max())}, but {num} scenes have the numbers "
            f"0..{num - 1}: pass the number of all scenes that were measured."
        )
    return AttributeSample(values, scene, num)


def _resample_scenes(
    counts: Int[Tensor, " s"], n: int, resamples: int, generator: torch.Generator
) -> Float[Tensor, "r s"]:
    """How often each scene is among n that are drawn with replacement, of which at least one has a value."""
    return torch.cat(list(resampled_counts(len(counts), n, resamples, generator, accept=counts > 0)))


def _mass_per_value(times: Float[Tensor, "r s"], counts: Int[Tensor, " s"]) -> Float[Tensor, "r s"]:
    """Probability of one value of each scene."""
    return times / (times @ counts.double())[:, None]
