"""Bootstrap over scenes or images: how often each is drawn with replacement, and intervals from the resamples."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ms2.core.errors import UserError
from ms2.metrics.intervals import Interval

MAX_DRAWS_PER_CHUNK = 2_000_000
"""Draws held at once: 16 bytes each, so about 32 MB."""
MIN_STANDARD_ERRORS = 3.0
"""Number of standard errors below which a difference is taken as 0 by `excess`."""


def check_options(resamples: int, level: float = 0.95) -> None:
    """Check the options of a bootstrap.

    Raises:
        UserError: If there are no resamples, or the level is outside (0, 1).
    """
    if resamples < 1 or not 0 < level < 1:
        raise UserError(
            f"resamples={resamples} and level={level} were given, but resamples must be at least 1 and level between "
            "0 and 1: try resamples=500, level=0.95."
        )


def resampled_counts(
    num_items: int,
    num_drawn: int,
    resamples: int,
    generator: torch.Generator,
    *,
    group: Int[Tensor, " n"] | None = None,
    num_groups: int | None = None,
    accept: Bool[Tensor, " n"] | None = None,
    width: int = 1,
    dtype: torch.dtype = torch.float64,
) -> Iterator[Float[Tensor, "r k"]]:
    """Count how often each item is in each of `resamples` sets, drawn with replacement; a few sets at a time.

    The draws are those of one `torch.randint` per set, in order, so the size of the chunks does not change them (on a
    CPU). They stay on the generator's device.

    Args:
        num_items: Number of items to draw from, n.
        num_drawn: Size of each set.
        resamples: Number of sets, r over all chunks.
        generator: Draws the sets.
        group: Group of each item, to count groups instead of items (k of them, `num_groups`).
        num_groups: Number of groups.
        accept: Whether each item is acceptable; sets without an acceptable item, of which there must be one, are drawn
            again.
        width: Numbers per set that the caller holds beside the draws, which makes the chunks smaller.
        dtype: Type of the counts.
    """
    device, k = generator.device, num_items if num_groups is None else num_groups
    chunk, missing = max(1, MAX_DRAWS_PER_CHUNK // max(num_drawn, num_items, width)), resamples
    while missing > 0:
        drawn = torch.randint(num_items, (min(chunk, missing), num_drawn), generator=generator, device=device)
        if accept is not None:
            drawn = drawn[accept[drawn].any(1)]
        missing -= len(drawn)
        place = drawn if group is None else group[drawn]
        counts = torch.zeros(len(drawn), k, dtype=dtype, device=device)
        yield counts.scatter_add_(1, place, torch.ones((), dtype=dtype, device=device).expand(place.shape))


def excess(difference: Float[Tensor, " k"], resampled: Float[Tensor, "r k"]) -> Float[Tensor, " r"]:
    """Compute the upward bias of sum |difference| due to sampling noise, in each resample.

    Where |difference| is within `MIN_STANDARD_ERRORS` standard errors of 0 it counts as 0, because |x| has a kink at 0
    (Fang and Santos 2019, "Inference on Directionally Differentiable Functions").
    """
    noise = resampled - difference
    centre = zero_insignificant(difference, noise.square().mean(0))
    return (centre + noise).abs().sum(-1) - centre.abs().sum()


def zero_insignificant(difference: Float[Tensor, "*r k"], variance: Float[Tensor, " k"]) -> Float[Tensor, "*r k"]:
    """Set differences to 0 that are within `MIN_STANDARD_ERRORS` standard errors of 0."""
    return difference * (difference.abs() > MIN_STANDARD_ERRORS * variance.sqrt())


def convex_interval(
    value: Float[Tensor, ""], resampled: Float[Tensor, " r"], raised: Float[Tensor, " r"], level: float
) -> Interval:
    """Compute the interval of a convex distance, which sampling noise biases upwards.

    The upper end is the percentile of the resampled distances: cautious, since resampling adds the noise once more. The
    lower end is `value` less the upper quantile of what noise adds (`raised`), clipped at 0: the basic bootstrap.
    """
    upper = (1 + level) / 2
    low = (value - raised.quantile(upper)).clamp(min=0).minimum(value)
    return Interval(float(value), float(low), float(resampled.quantile(upper).maximum(value)))


def basic_interval(
    value: Float[Tensor, ""], error: Float[Tensor, " r"], level: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Compute the basic bootstrap interval: the value minus quantiles of the resamples' errors.

    The upper end takes the larger of the error's two tails, because squared distances are skewed near 0.
    """
    below, above = error.quantile((1 - level) / 2), error.quantile((1 + level) / 2)
    return value - above, value + torch.maximum(above, -below)


def percentile_interval(values: Shaped[Tensor, " r"], level: float) -> Interval:
    """Compute the percentile interval of the first value from the others; NaNs are left out."""
    value, others = values[0], values[1:]
    low, high = others.nanquantile((1 - level) / 2), others.nanquantile((1 + level) / 2)
    return Interval(float(value), float(low.fmin(value)), float(high.fmax(value)))
