"""Distances between the structure distributions of two sets of scenes, with bootstrap intervals and a noise floor.

A *statistic* of a set of scenes is a table `[n k]` of numbers >= 0: row i holds what scene i adds to each of k bins.
Its distribution is the column sum divided by the total. Objects per scene is a one-hot row per scene, class frequencies
count the objects of each class, and "cars on road 1" has a zero row wherever there is no road 1. Because a row is one
scene, resampling rows resamples scenes: objects of one scene are not independent, and the intervals account for that.

Where nothing was counted the distribution is all zeros. Every distance reads that as all mass in one more bin,
"nothing", placed after the last: an empty distribution is at TV 1 from any other and at distance 0 from an empty one.

Where a scene is described by several numbers at once, a row is its *structure vector* instead, and the energy distance
(Székely and Rizzo 2013) compares the joint distributions: it is 0 only where all of them together agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Real
from scipy.special import stdtrit
from torch import Tensor

# Added to each bin's probability before a logarithm: one part in 10,000 is below what 1,000 scenes can resolve.
SMOOTHING = 1e-4
# A bin whose two probabilities differ by less than this many standard errors may well not differ at all.
UNRESOLVED = 3.0
# Draws, or distances between rows, held at once by the bootstrap: 16 bytes each, so about 32 MB.
CHUNK = 2_000_000


class _Atoms(NamedTuple):
    """Two sets of vectors as the u different ones of both, and how often each set has each of them.

    Double precision throughout: near 0 the distance is the small difference of large means.
    """

    points: Float[Tensor, "u d"]
    times: tuple[Float[Tensor, " u"], Float[Tensor, " u"]]


@dataclass(frozen=True)
class Interval:
    """A measured value and the ends of its confidence interval; `low <= value <= high`, all in the value's unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of independent measurements, and its interval by Student's t; that of a single one has no width."""
    numbers = torch.tensor(values, dtype=torch.double)
    mean = float(numbers.mean())
    if len(values) < 2:
        return Interval(mean, mean, mean)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * float(numbers.std()) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def one_hot_counts(values: Int[Tensor, " n"], bins: int | None = None) -> Float[Tensor, "n k"]:
    """Table of a statistic with one whole number per scene, such as its object count: row i is 1 in bin `values[i]`.

    `bins` is k, by default the largest value + 1. ValueError if there is no scene or a value lies outside 0..k-1.
    """
    if len(values) == 0:
        raise ValueError("values is empty, but a statistic needs at least one scene: pass one value per scene.")
    low, high = int(values.min()), int(values.max())
    bins = high + 1 if bins is None else bins
    if low < 0 or high >= bins:
        raise ValueError(f"values span {low}..{high}, but bins={bins} holds 0..{bins - 1}: shift them or raise bins.")
    return torch.nn.functional.one_hot(values.long(), bins).float()


def distribution(table: Real[Tensor, "*r n k"]) -> Float[Tensor, "*r k"]:
    """Column sums divided by their total: the share of each bin; all zeros, not NaN, where nothing was counted."""
    return _normalise((table if table.is_floating_point() else table.float()).sum(-2))


def total_variation(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> Float[Tensor, "*r"]:
    """Half the summed absolute difference, 0..1: the share of the mass that sits in the wrong bin."""
    return _gap(p, q).abs().sum(-1) / 2


def wasserstein(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> Float[Tensor, "*r"]:
    """W1 in bins, 0..k, with bin i at position i: how far the mass must move on average.

    In one dimension it is the summed absolute CDF difference (Vallender 1974). Only for bins with an order.
    """
    return _gap(p, q).cumsum(-1).abs().sum(-1)


def kl_divergence(
    p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"], smoothing: float = SMOOTHING
) -> Float[Tensor, "*r"]:
    """KL(p || q) in nats, >= 0: large where p has mass in bins that q lacks.

    Each bin of both gets `smoothing` (a probability) added and is normalised again, so a bin that only q lacks costs
    about p ln(p / smoothing) and not infinity. With `smoothing=0` the result is exact and may be infinite.
    """
    smooth_p, smooth_q = (_normalise(_with_nothing(x) + smoothing) for x in (p, q))
    # Rounding can leave a sum of about -1e-8 where p all but equals q.
    return (torch.xlogy(smooth_p, smooth_p) - torch.xlogy(smooth_p, smooth_q)).sum(-1).clamp(min=0)


def compare(
    generated: Real[Tensor, "n k"],
    target: Real[Tensor, "m j"],
    *,
    generator: torch.Generator,
    resamples: int = 500,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Distances `tv`, `kl` (generated || target, nats) and `wasserstein` (bins), each with a bootstrap interval.

    The narrower table is padded with empty bins. `value` is the distance of the two full samples. The interval holds
    the distance of the underlying distributions with probability of about `level`, near 0 more often. Scenes of both
    sets are resampled; the work is done on the generator's device.

    All three distances are convex, so sampling noise raises them, and resampling adds that noise once more: near 0
    the plain percentile interval lies wholly above the truth. Its upper end only becomes cautious (most of all that of
    `kl` with rare bins), so it is kept. The lower end is `value` minus the upper quantile of the excess (resampled -
    measured), clipped at 0: the basic bootstrap. For `tv` and `wasserstein` that still misses 0 when there are many
    bins, since |x| has a kink at 0: there the excess takes unresolved bins as equal (Fang and Santos 2019, "Inference
    on Directionally Differentiable Functions"). No bootstrap knows of bins that neither sample shows; one scene per
    set yields a width of 0.

    ValueError for a table without scenes or with negative or not finite entries, `resamples` < 1 or `level` outside
    (0, 1).
    """
    _check_options(resamples, level)
    width = max(generated.shape[1], target.shape[1])
    tables = [_prepare("generated", generated, width, generator), _prepare("target", target, width, generator)]
    p, q = (distribution(table) for table in tables)
    ps, qs = (_resample(table, len(table), resamples, generator) for table in tables)
    value, values = _distances(p, q), _distances(ps, qs)
    gap, gaps = _gap(p, q), _gap(ps, qs)
    excess = {
        "tv": _excess(gap, gaps) / 2,
        "kl": values["kl"] - value["kl"],
        "wasserstein": _excess(gap.cumsum(-1), gaps.cumsum(-1)),
    }
    return {name: _interval(value[name], values[name], excess[name], level) for name in value}


def noise_floor(
    target: Real[Tensor, "m k"], n: int, *, generator: torch.Generator, resamples: int = 200
) -> dict[str, float]:
    """Mean `tv`, `kl` and `wasserstein` between n scenes drawn with replacement from the target and the target itself.

    What a perfect model still shows when n of its scenes are measured; units as in `compare`. ValueError as there,
    and if n < 1.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n={n} and resamples={resamples} were given, but both must be at least 1: raise them.")
    table = _prepare("target", target, target.shape[1], generator)
    distances = _distances(_resample(table, n, resamples, generator), distribution(table))
    return {name: float(values.mean()) for name, values in distances.items()}


def energy_distance(x: Real[Tensor, "n d"], y: Real[Tensor, "m e"]) -> float:
    """sqrt(2 E|X-Y| - E|X-X'| - E|Y-Y'|) of the laws of two sets of vectors, in the unit of the vectors; e = d.

    Székely and Rizzo 2013, "Energy statistics", with Euclidean norms. The means within a set leave out the pairs of a
    row with itself, so the estimate of the square has no bias; where it comes out negative, the distance is 0.

    ValueError for fewer than two rows, no columns, numbers of columns that differ, or entries that are not finite.
    """
    atoms = _atoms(x, y, x.device)
    times_x, times_y = atoms.times
    return float(_root(_energy_squared(atoms.points, times_x[None], times_y[None], len(x), len(y))))


def compare_vectors(
    generated: Real[Tensor, "n d"],
    target: Real[Tensor, "m e"],
    *,
    generator: torch.Generator,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """Energy distance of two sets of structure vectors, a row per scene, with a bootstrap interval.

    `value` is the `energy_distance` of the two full samples. The interval holds the distance of the underlying laws
    with probability of about `level`, near 0 more often, where it begins at 0. Scenes of both sets are resampled; the
    work is done on the generator's device. The distances between rows are computed once for all resamples, and between
    different rows only: many scenes have the same structure.

    It is the basic bootstrap of the squared distance, which is smooth at 0, so unlike in `compare` nothing has to be
    taken as equal: the error (resampled - mean of the resampled) replaces (measured - true). That mean is known: a
    resample is drawn from the empirical laws, whose squared distance counts the pairs of a row with itself. The upper
    end takes the larger of the error's two tails, as the square is skewed near 0.

    ValueError as in `energy_distance`, for `resamples` < 1 or `level` outside (0, 1).
    """
    _check_options(resamples, level)
    atoms = _atoms(generated, target, generator.device)
    sizes = (len(generated), len(target))
    drawn = [_multiplicities(times, size, resamples, generator) for times, size in zip(atoms.times, sizes, strict=True)]
    # the last row is the sample itself
    both = [torch.cat([rows, times[None]]) for rows, times in zip(drawn, atoms.times, strict=True)]
    cross, within_x, within_y = _mean_distances(atoms.points, *both)
    squares = 2 * cross - _unbiased(within_x, sizes[0]) - _unbiased(within_y, sizes[1])
    empirical = (2 * cross - within_x - within_y)[-1]
    square, error = squares[-1], squares[:-1] - empirical
    below, above = error.quantile((1 - level) / 2), error.quantile((1 + level) / 2)
    value = _root(square)
    low, high = _root(square - above), _root(square + torch.maximum(above, -below))
    return Interval(float(value), float(low.minimum(value)), float(high.maximum(value)))


def vector_noise_floor(
    target: Real[Tensor, "m d"], n: int, *, generator: torch.Generator, resamples: int = 200
) -> float:
    """Mean energy distance between n rows and m rows, both drawn with replacement from the m rows of the target.

    What a perfect model still shows when n of its scenes are compared with the m of the target. The target is redrawn
    too, unlike in `noise_floor`: the estimate has no bias only between independent samples, and would come out below 0
    between the target and rows of its own. ValueError as in `energy_distance`, for n < 2 or `resamples` < 1.
    """
    if n < 2 or resamples < 1:
        raise ValueError(
            f"n={n} and resamples={resamples} were given, but n must be at least 2, since rows of one set are compared "
            "in pairs, and resamples at least 1: raise them."
        )
    atoms = _atoms(target, target, generator.device)
    m = len(target)
    xs, ys = (_multiplicities(atoms.times[1], size, resamples, generator) for size in (n, m))
    return float(_root(_energy_squared(atoms.points, xs, ys, n, m)).mean())


def _check_options(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples={resamples} and level={level} were given, but resamples must be at least 1 and level between "
            "0 and 1: try resamples=500, level=0.95."
        )


def _normalise(mass: Float[Tensor, "*r k"]) -> Float[Tensor, "*r k"]:
    total = mass.sum(-1, keepdim=True)
    return mass / total.where(total > 0, torch.ones_like(total))


def _with_nothing(p: Float[Tensor, "*r k"]) -> Float[Tensor, "*r k+1"]:
    """The distribution with the bin "nothing" after the last."""
    return torch.cat([p, (p.sum(-1, keepdim=True) == 0).to(p)], dim=-1)


def _gap(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> Float[Tensor, "*r k+1"]:
    return _with_nothing(p) - _with_nothing(q)


def _distances(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> dict[str, Float[Tensor, "*r"]]:
    return {"tv": total_variation(p, q), "kl": kl_divergence(p, q), "wasserstein": wasserstein(p, q)}


def _prepare(name: str, table: Real[Tensor, "n k"], width: int, generator: torch.Generator) -> Float[Tensor, "n w"]:
    """The checked table, padded to `width` bins, as floats on the generator's device."""
    if table.shape[0] == 0 or table.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {list(table.shape)}, but at least one scene (row) and one bin (column) are needed: "
            "pass the table of a set of scenes that is not empty."
        )
    table = torch.nn.functional.pad(table, (0, width - table.shape[1])).to(generator.device)
    if not bool(((table >= 0) & table.isfinite()).all()):
        raise ValueError(
            f"{name} has an entry that is negative or not finite, but entries count what a scene adds to a bin: "
            "check the statistic."
        )
    return table if table.is_floating_point() else table.float()


def _resample(
    table: Float[Tensor, "m k"], n: int, resamples: int, generator: torch.Generator
) -> Float[Tensor, "{resamples} k"]:
    """Distributions of `resamples` sets of n scenes, each drawn from the table's rows with replacement."""
    rows = []
    chunk = max(1, CHUNK // max(n, len(table)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = torch.randint(len(table), (size, n), generator=generator, device=generator.device)
        times = table.new_zeros(size, len(table)).scatter_add_(1, drawn, table.new_ones(()).expand(size, n))
        rows.append(times @ table)
    return _normalise(torch.cat(rows))


def _excess(gap: Float[Tensor, " k"], gaps: Float[Tensor, "r k"]) -> Float[Tensor, " r"]:
    """How far noise lifts the sum of |gap|, per resample, if gaps that the noise can explain are 0 in truth."""
    noise = gaps - gap
    resolved = gap.abs() > UNRESOLVED * noise.square().mean(0).sqrt()
    centre = gap * resolved
    return (centre + noise).abs().sum(-1) - centre.abs().sum()


def _interval(
    value: Float[Tensor, ""], values: Float[Tensor, " r"], excess: Float[Tensor, " r"], level: float
) -> Interval:
    upper = (1 + level) / 2
    low = (value - excess.quantile(upper)).clamp(min=0).minimum(value)
    high = values.quantile(upper).maximum(value)
    return Interval(float(value), float(low), float(high))


def _atoms(x: Real[Tensor, "n d"], y: Real[Tensor, "m e"], device: torch.device) -> _Atoms:
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
    return _Atoms(points, (times_x, times_y))


def _multiplicities(
    times: Float[Tensor, " u"], n: int, resamples: int, generator: torch.Generator
) -> Float[Tensor, "{resamples} u"]:
    """How often `resamples` sets of n rows, drawn with replacement, have each of the u different rows."""
    place = torch.arange(len(times), device=times.device).repeat_interleave(times.long())
    rows = []
    chunk = max(1, CHUNK // max(n, len(times)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = place[torch.randint(len(place), (size, n), generator=generator, device=generator.device)]
        rows.append(times.new_zeros(size, len(times)).scatter_add_(1, drawn, times.new_ones(()).expand(size, n)))
    return torch.cat(rows)


def _mean_distances(
    points: Float[Tensor, "u d"], times_x: Float[Tensor, "r u"], times_y: Float[Tensor, "r u"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Mean distance between x and y, within x and within y, the pairs of a row with itself included."""
    x, y = (times / times.sum(1, keepdim=True) for times in (times_x, times_y))
    cross, within_x, within_y = (points.new_zeros(len(x)) for _ in range(3))
    # A few rows of the u x u distances at a time: with 10,000 different rows in each set, all of them take 3.2 GB.
    step = max(1, CHUNK // len(points))
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
    """The mean without the n pairs, of n^2, of a row with itself, whose distance is 0."""
    return within * n / (n - 1)


def _energy_squared(
    points: Float[Tensor, "u d"], times_x: Float[Tensor, "r u"], times_y: Float[Tensor, "r u"], n: int, m: int
) -> Float[Tensor, " r"]:
    """Unbiased estimates of the squared energy distance, which may be negative."""
    cross, within_x, within_y = _mean_distances(points, times_x, times_y)
    return 2 * cross - _unbiased(within_x, n) - _unbiased(within_y, m)


def _root(square: Float[Tensor, "*r"]) -> Float[Tensor, "*r"]:
    return square.clamp(min=0).sqrt()
