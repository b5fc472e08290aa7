"""Fréchet inception distance, with jackknife intervals (Heusel et al., 2017)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.metrics.intervals import Interval, PriorAndLearned

Z_95 = 1.96
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""
MAX_GROUPS = 20
"""Groups of images that the jackknife leaves out, one at a time."""


def fid(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Compute |μx - μy|² + tr(Σx + Σy - 2 (Σx Σy)^½) from the means and covariances (over n - 1) of two sets."""
    return float(_frechet(_normal(x.double()), _normal(y.double())))


def fid_intervals(
    prior: Float[Tensor, "n d"], learned: Float[Tensor, "k d"], real: Float[Tensor, "m d"]
) -> PriorAndLearned:
    """Compute the FID of the prior's and the learned model's images to the target's, and its change, with intervals.

    The intervals are by the jackknife, which leaves out a group of images of one set at a time.

    A bootstrap sample has fewer different images, hence a FID that is higher by more than the interval is wide, and
    with fewer images than features twice the deviation. The jackknife has about the right one: with 100 and 60 images
    of 5 features 0.160 for 0.154, with 100 and 40 of 60 features 0.79 for 0.59.
    """
    sets = [learned, prior, real]
    whole = [_normal(x) for x in sets]
    value = _both_and_change(whole)
    variance = torch.zeros(3, dtype=torch.float64)
    for i, x in enumerate(sets):
        groups = min(MAX_GROUPS, len(x))
        group = torch.arange(len(x)) % groups
        rest = [_normal(x[group != k]) for k in range(groups)]
        without = torch.stack([_both_and_change([*whole[:i], part, *whole[i + 1 :]]) for part in rest])
        variance += (groups - 1) * without.var(0, correction=0)
    half = Z_95 * variance.sqrt()
    now, before, change = (Interval(v, v - h, v + h) for v, h in zip(value.tolist(), half.tolist(), strict=True))
    return PriorAndLearned(now, before, change if before.low > 0 else None)


class _Normal(NamedTuple):
    """Mean, and a root R of the covariance RᵀR."""

    mean: Float[Tensor, " d"]
    root: Float[Tensor, "k d"]


def _both_and_change(laws: Sequence[_Normal]) -> Float[Tensor, "3"]:
    learned, prior, real = laws
    now, before = _frechet(learned, real), _frechet(prior, real)
    return torch.stack([now, before, now / before - 1])


def _normal(x: Float[Tensor, "n d"]) -> _Normal:
    """The normal law with the moments of a set."""
    mean = x.mean(0)
    root = (x - mean) / (len(x) - 1) ** 0.5
    if len(root) > root.shape[1]:
        root = torch.linalg.qr(root, mode="r")[1]  # the same covariance in fewer rows
    return _Normal(mean, root)


def _frechet(p: _Normal, q: _Normal) -> Float[Tensor, ""]:
    """Fréchet distance of two normal laws.

    With Σp = PᵀP and Σq = QᵀQ, the eigenvalues of Σp Σq that aren't 0 are those of (P Qᵀ)(P Qᵀ)ᵀ, so the trace of its
    root is the sum of the singular values of P Qᵀ: no larger than the sets are, and no root of a rounding error. For
    1,000 and 414 images with 1,280 features it takes 0.05 s on one core, and `torchmetrics` 1 s.
    """
    spread = p.root.square().sum() + q.root.square().sum()
    return (p.mean - q.mean).square().sum() + spread - 2 * torch.linalg.svdvals(p.root @ q.root.T).sum()
