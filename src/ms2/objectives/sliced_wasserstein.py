"""Sliced Wasserstein distance, by sample."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Dimension, Seed
from ms2.core.seeding import generator
from ms2.objectives.base import Objective


class SlicedWasserstein(Objective):
    """Scores samples by the first variation of the sliced Wasserstein distance W1.

    The distance is the mean, over directions, of the distances of features projected onto them (Bonneel et al. 2015,
    "Sliced and Radon Wasserstein barycenters of measures"). The first variation of each is its Kantorovich potential
    (Santambrogio 2015, "Optimal transport for applied mathematicians", section 7.2), which has the slope
    -sign(F - G) with F and G the CDFs of generated and target samples. The score is the mean of these potentials at the
    sample's projections. They are shifted to mean zero under (q + p) / 2, so that scores have half the distance as
    their mean.

    It is the distance of order 1 because its potential follows from the CDFs alone, with ties and for any numbers of
    samples, and leaving a sample out of F costs one prefix sum. The order 2 needs the optimal coupling, which is not
    unique where samples coincide, as in features that count.

    The sample itself is left out of F, and one target sample out of G to match. With that the expected score of every
    sample is exactly 0 where both distributions are equal, for each batch size. Where F = G the slope is 0, halfway
    between its one-sided values, so a single sample beyond all others is scored as if it lay at the edge of these.

    Directions depend on the seed and the block's dimension alone: the processes that share a population, resumed runs
    and the two sides of a finite difference have the same. Scores have the unit of the features: a block whose features
    are larger weighs more in the sum.

    Args:
        blocks: Feature blocks to compare; all by default.
        num_directions: Number of directions, drawn from the uniform distribution; a block of dimension 1 has one.
        seed: Seed of the directions.

    Example:
        >>> generated = {"count": torch.tensor([[1.0], [1.0], [3.0]])}
        >>> real = {"count": torch.tensor([[1.0], [3.0], [3.0]])}
        >>> SlicedWasserstein()(generated, generated, torch.arange(3), real)[0]
        tensor([ 0.0000,  0.0000, -1.5000])
    """

    def __init__(self, blocks: Sequence[str] | None = None, num_directions: Dimension = 64, seed: Seed = 0) -> None:
        super().__init__(blocks)
        self.num_directions, self.seed = num_directions, seed

    def compare(
        self,
        block: str,
        features: Float[Tensor, "b d"],
        generated: Float[Tensor, "m d"],
        own_index: Int[Tensor, " b"],
        real: Float[Tensor, "l d"],
    ) -> tuple[Float[Tensor, " b"], None]:
        """Compute the mean potential of one block."""
        number = self.num_directions if features.shape[1] > 1 else 1
        lines = _directions(number, features.shape[1], self.seed, features.device, features.dtype)
        places, targets = lines @ generated.T, lines @ real[: len(generated) - 1].T
        # A sample whose features are those among the generated ones has exactly their place, whatever the rounding.
        moved = lines @ (features - generated[own_index]).T
        return _potentials(moved, places, own_index, targets).mean(0), None


@cache
def _directions(
    number: int, dimension: int, seed: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "{number} {dimension}"]:
    """Draw unit vectors; on the CPU, so that they are the same on every device, and once, as copies wait for it."""
    drawn = torch.randn(number, dimension, generator=generator(seed, "directions", dimension), dtype=torch.double)
    return F.normalize(drawn, dim=1).to(device, dtype)


def _potentials(
    moved: Float[Tensor, "r b"],
    generated: Float[Tensor, "r m"],
    own_index: Int[Tensor, " b"],
    target: Float[Tensor, "r l"],
) -> Float[Tensor, "r b"]:
    """Compute the potential of each sample on each line, with the sample left out of the generated ones.

    Args:
        moved: How far each scored sample is from its place among the generated ones.
        generated: Places of the generated samples.
        own_index: Index of each scored sample among them.
        target: Places of the target samples.
    """
    others, targets = generated.shape[1] - 1, target.shape[1]
    values, order = torch.cat([generated, target], 1).sort(1)
    # From each value to the next there are so many samples below: of the generated ones less the one that is left out
    # (after) or not (before), as it may lie farther up.
    below = (order <= others).cumsum(1)
    below_target = torch.arange(1, values.shape[1] + 1, device=values.device) - below
    sides = torch.stack([below, below - 1])
    signs = (sides * targets - below_target * others).sign().to(values)
    means = (sides.to(values) / others + below_target.to(values) / targets) / 2
    lengths = values.diff(dim=1, append=values[:, -1:])
    integrals = F.pad((signs * lengths).cumsum(2), (1, -1))  # of sign(F - G) up to each value
    # The integral of sign(F - G) (1[t >= own] - (F + G) / 2) over all t.
    before, after = signs[0] * means[0] * lengths, signs[1] * (1 - means[1]) * lengths
    own = generated[:, own_index]
    here = torch.searchsorted(values, own)
    potential = after.sum(1, keepdim=True) - F.pad((before + after).cumsum(1), (1, -1)).gather(1, here)
    # From there to the sample's place the potential falls by the integral: twice, as its derivative at a value is the
    # mean of those to the left and to the right.
    place = own + moved
    end, fixed = place.repeat(1, 2), place.detach()
    is_after = torch.cat([fixed > own, fixed >= own], 1)
    index = torch.cat([torch.searchsorted(values, fixed, right=right) for right in (False, True)], 1)
    last = (index - 1).clamp(min=0)

    def at(rows: Float[Tensor, "2 r n"], column: Int[Tensor, "r c"]) -> Float[Tensor, "r c"]:
        return torch.where(is_after, rows[1].gather(1, column), rows[0].gather(1, column))

    there = at(integrals, last) + at(signs, last) * (end - values.gather(1, last))
    fall = there * (index > 0) - at(integrals, here.repeat(1, 2))
    return potential - torch.stack(fall.chunk(2, 1)).mean(0)
