"""Distances between histograms of structure, with bootstrap intervals and a noise floor."""

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from ms2.metrics.bootstrap import check_options, convex_interval, excess, resampled_counts
from ms2.metrics.intervals import Interval

SMOOTHING = 1e-4
"""Added to each bin's probability before a logarithm: one part in 10,000 is below what 1,000 scenes can resolve."""


def one_hot_counts(values: Int[Tensor, " n"], bins: int | None = None) -> Float[Tensor, "n k"]:
    """One-hot encode one whole number per scene, such as its object count: row i is 1 in bin `values[i]`.

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
    """Compute the share of each bin from the counts per scene; all zeros, not NaN, where nothing was counted."""
    return _normalise((table if table.is_floating_point() else table.float()).sum(-2))


def total_variation(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> Float[Tensor, "*r"]:
    """Compute half the summed absolute difference, 0..1: the share of the mass in the wrong bin."""
    return _gap(p, q).abs().sum(-1) / 2


def wasserstein(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> Float[Tensor, "*r"]:
    """Compute W1 in bins, 0..k, with bin i at position i: the mean distance that the mass has to be moved.

    In one dimension it is the summed absolute CDF difference (Vallender 1974). Only for bins with an order.
    """
    return _gap(p, q).cumsum(-1).abs().sum(-1)


def kl_divergence(
    p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"], smoothing: float = SMOOTHING
) -> Float[Tensor, "*r"]:
    """Compute KL(p || q) in nats, >= 0: large where p has mass in bins that q lacks.

    Each bin of both gets `smoothing` (a probability) added and is normalised again, so a bin that only q lacks costs
    about p ln(p / smoothing) and not infinity. With `smoothing=0` the result is exact and may be infinite.
    """
    smooth_p, smooth_q = (_normalise(_with_empty_bin(x) + smoothing) for x in (p, q))
    # Rounding can leave a sum of about -1e-8 where p all but equals q.
    return (torch.xlogy(smooth_p, smooth_p) - torch.xlogy(smooth_p, smooth_q)).sum(-1).clamp(min=0)


def compare_histograms(
    generated: Real[Tensor, "n k"],
    target: Real[Tensor, "m j"],
    *,
    generator: torch.Generator,
    resamples: int = 500,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Compute `tv`, `kl` (generated || target, nats) and `wasserstein` (bins), each with a bootstrap interval.

    The narrower table is padded with empty bins. `value` is the distance of the two full samples. The interval holds
    the distance of the underlying distributions with probability of about `level`, near 0 more often. Scenes of both
    sets are resampled; the work is done on the generator's device.

    All three distances are convex, so sampling noise raises them, and resampling adds that noise once more: near 0
    the plain percentile interval lies wholly above the truth. Its upper end only becomes cautious (most of all that of
    `kl` with rare bins), so it is kept; the lower end is that of the basic bootstrap (`convex_interval`). For `tv` and
    `wasserstein` that still misses 0 when there are many bins, so bins that do not differ by much count as equal
    (`excess`). Bins that neither sample shows are not accounted for; one scene per set yields a width of 0.

    ValueError for a table without scenes or with negative or not finite entries, `resamples` < 1 or `level` outside
    (0, 1).
    """
    check_options(resamples, level)
    width = max(generated.shape[1], target.shape[1])
    tables = [_prepare("generated", generated, width, generator), _prepare("target", target, width, generator)]
    p, q = (distribution(table) for table in tables)
    ps, qs = (_resample(table, len(table), resamples, generator) for table in tables)
    value, values = _distances(p, q), _distances(ps, qs)
    gap, gaps = _gap(p, q), _gap(ps, qs)
    raised = {
        "tv": excess(gap, gaps) / 2,
        "kl": values["kl"] - value["kl"],
        "wasserstein": excess(gap.cumsum(-1), gaps.cumsum(-1)),
    }
    return {name: convex_interval(value[name], values[name], raised[name], level) for name in value}


def histogram_noise_floor(
    target: Real[Tensor, "m k"], n: int, *, generator: torch.Generator, resamples: int = 200
) -> dict[str, float]:
    """Estimate the noise floor: mean `tv`, `kl` and `wasserstein` of n to m scenes, both bootstrapped from the target.

    This is what a perfect model shows when n of its scenes are compared with the m of the target, which are a sample
    too: a perfect model has the distribution that they were drawn from, and not that of the sample. Units as in
    `compare_histograms`. ValueError as there, and if n < 1.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n={n} and resamples={resamples} were given, but both must be at least 1: raise them.")
    table = _prepare("target", target, target.shape[1], generator)
    distances = _distances(*(_resample(table, size, resamples, generator) for size in (n, len(table))))
    return {name: float(values.mean()) for name, values in distances.items()}


def _normalise(mass: Float[Tensor, "*r k"]) -> Float[Tensor, "*r k"]:
    total = mass.sum(-1, keepdim=True)
    return mass / total.where(total > 0, torch.ones_like(total))


def _with_empty_bin(p: Float[Tensor, "*r k"]) -> Float[Tensor, "*r k+1"]:
    """Append a bin that holds all mass where nothing was counted."""
    return torch.cat([p, (p.sum(-1, keepdim=True) == 0).to(p)], dim=-1)


def _gap(p: Float[Tensor, "*#r k"], q: Float[Tensor, "*#r k"]) -> Float[Tensor, "*r k+1"]:
    return _with_empty_bin(p) - _with_empty_bin(q)


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
    counts = resampled_counts(len(table), n, resamples, generator, dtype=table.dtype)
    return _normalise(torch.cat([times @ table for times in counts]))
