"""Objectives: a score for each generated sample, low where the target has more of its kind than the model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.registry import Plugin, UserError, suggest

Blocks = Mapping[str, Float[Tensor, "_ _"]]


class Objective(Plugin, ABC, kind="objectives"):
    """A cost of each generated sample, given other generated and real ones, summed over feature blocks.

    It is the derivative of a divergence with respect to how much there is of such samples, so that its mean's gradient
    with the other samples held is that of the divergence: by the score function (structure), or through the features
    themselves (parameters), where ``pathwise`` says that it depends on these smoothly.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; None for those named in ``bandwidth``, or all.
        relative: Whether bandwidths are in units of the mean variance of the real samples' features, whatever their
            scale, as those of a network trained elsewhere; the paper's are not.
    """

    pathwise = True

    def __init__(
        self,
        bandwidth: float | dict[str, float] = 1.0,
        blocks: Sequence[str] | None = None,
        relative: bool = False,
    ) -> None:
        self.bandwidth, self.relative = bandwidth, relative
        self.blocks = list(bandwidth) if blocks is None and isinstance(bandwidth, dict) else blocks
        widths = bandwidth.values() if isinstance(bandwidth, dict) else [bandwidth]
        if any(w <= 0 for w in widths):
            raise UserError(f"bandwidths must be positive, not {bandwidth}")
        if self.blocks is not None and not self.blocks:
            raise UserError("no feature block is named; leave blocks out to compare all of them")

    def __call__(
        self, features: Blocks, population: Blocks, own: Int[Tensor, " b"], real: Blocks
    ) -> tuple[Float[Tensor, " b"], dict[str, Float[Tensor, ""]]]:
        """Score of each sample, the sum of `by_block`, and the sharpness of each block's kernel."""
        scores, sharpness = self.by_block(features, population, own, real)
        return torch.stack(list(scores.values())).sum(0), sharpness

    def by_block(
        self, features: Blocks, population: Blocks, own: Int[Tensor, " b"], real: Blocks
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, Float[Tensor, ""]]]:
        """Score of each sample from each block, and the sharpness of the block's kernel.

        Sharpness is the mean squared distance to the population over 2 H, the kernel's exponent: near 0 the
        density ratio is all but linear and matches only means; far above 1 each sample sees only itself.

        Args:
            features: The samples to score.
            population: All generated samples, those of other processes included; b of them are ``features``.
            own: Place of each sample of ``features`` in the population.
            real: As many real samples as there are in the population.

        Raises:
            UserError: If a block is asked for that the extractor does not give.
        """
        if min(len(block) for block in (*population.values(), *real.values())) < 2:
            raise UserError("a score compares samples, so it needs at least two: raise data.batch_size")
        scores, sharpness = {}, {}
        for name in self.blocks or list(features):
            if name not in features:
                raise UserError(f"the features have no block {name!r}. {suggest(name, features)}")
            variance = self._variance(name, features[name].shape[1])
            if self.relative:
                variance *= float(real[name].var(0).mean().clamp(min=1e-12))
            # scores are functions of a sample's own features: all others are held, also where there are gradients
            others = population[name].detach()
            to_population = -torch.cdist(features[name], others).square() / (2 * variance)
            to_real = -torch.cdist(features[name], real[name]).square() / (2 * variance)
            scores[name] = self.block_score(to_population, to_real, own, (others, real[name], variance))
            sharpness[name] = -to_population.mean()
        return scores, sharpness

    @abstractmethod
    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Score from one block: the kernel's exponents to the population and to the real samples."""

    def _variance(self, block: str, dimension: int) -> float:
        if not isinstance(self.bandwidth, dict):
            return self.bandwidth * dimension
        if block not in self.bandwidth:
            raise UserError(f"no bandwidth for the block {block!r}. {suggest(block, self.bandwidth)}")
        return self.bandwidth[block] * dimension


class KDE(Objective):
    """The paper's score: log q~(F) - log p~(F), both densities by kernel density estimation (eq. 2).

    Its mean is the reverse Kullback-Leibler divergence KL(q_f || p_f), which seeks modes.

    Args:
        bandwidth: The kernel's covariance is H = bandwidth * d * I with d the block's dimension; one number
            for all blocks, or one per block. The paper has 1.
        blocks: Feature blocks to compare; None for those named in ``bandwidth``, or all.
        relative: Whether bandwidths are in units of the mean variance of the real samples' features, whatever their
            scale, as those of a network trained elsewhere; the paper's are not.
        leave_one_out: Whether to leave a sample's own kernel out of q~, and one real sample out of p~ to
            match. The paper keeps it (False), which makes rare samples look frequent.
    """

    def __init__(
        self,
        bandwidth: float | dict[str, float] = 1.0,
        blocks: Sequence[str] | None = None,
        relative: bool = False,
        leave_one_out: bool = True,
    ) -> None:
        super().__init__(bandwidth, blocks, relative)
        self.leave_one_out = leave_one_out

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Log-density under the generated samples less that under the real ones."""
        size = to_population.shape[1]
        if self.leave_one_out:
            to_population = to_population.scatter(1, own[:, None], -math.inf)
            size -= 1
        # Both densities from the same number of samples: else their biases differ, and the difference decides
        # where the model goes.
        to_real = to_real[:, :size]
        q = to_population.logsumexp(1) - math.log(size)
        p = to_real.logsumexp(1) - math.log(to_real.shape[1])
        return q - p


class MMDWitness(Objective):
    """The witness function of the maximum mean discrepancy, a bounded score for each sample.

    Half the derivative of MMD^2 with respect to the sample's weight: mean kernel to the other generated samples
    less mean kernel to the real ones.
    """

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Mean kernel to the others less mean kernel to the real samples."""
        others = to_population.exp().scatter(1, own[:, None], 0.0).sum(1) / (to_population.shape[1] - 1)
        return others - to_real.exp().mean(1)


class ForwardKL(Objective):
    """A mode-covering score, from KL(p || q~): low wherever the target has more than the model covers.

    With K the kernel, F_1..F_m the generated and y_1..y_m the real samples,

        score_j = mean_k K(F_k, F_j) / q~(F_k) - mean_i K(y_i, F_j) / q~(y_i),    q~(f) = mean_n K(f, F_n).

    The second term alone is the score-function gradient of KL(p || q~). Its optimum is no q = p but a deconvolution,
    since the kernel smooths the model and not the target. The first term is the same under the generated samples, so
    that the expected score is K[(q - p) / q~]. Its mean under q is 0, so it is constant only where it is 0: where
    features identify the structure, q = p is the only stationary point of full support, and descent near it leads to
    it. No noise has to be drawn.

    Each real sample hands out one unit of credit over the generated ones, by a softmax of the kernels' exponents,
    however far away they are: to a mode that the model never draws, the nearest samples are drawn by its full mass,
    where the reverse KL (`KDE`) asks nothing of what is not drawn. In the same way each generated sample hands out a
    debit, so scores have mean 0 in each block and lie between -(m - 1) and m - 1.

    A sample's own kernel is left out of the first term (k = j) and of its densities (n = k): where it is isolated it
    would pay for itself. To match, one generated sample is left out of each density of the second term, averaged over
    which. With that the expected score of every sample is exactly 0 at q = p, for each batch size. Batches of two have
    no score but 0.

    The cost is variance: the few samples in a mode that is hardly covered share the credit of its whole mass, of the
    order m, where `KDE` takes a logarithm. Normalise advantages or cut gradients, and take large batches. With n
    samples of each set under a kernel, and q near p, both scores deviate by about (2 / n)^(1/2).

    Features must tell how far a sample is from what is missing: a one-hot of a count finds all other counts equally
    far, and no credit leads from 2 towards 7; the count itself, or Gaussian bumps of it, do.
    """

    pathwise = False

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """Debit from the other generated samples less credit from the real ones, see the class."""
        # Every process hands out the credit of all samples, of which it scores only some: a sample's share depends on
        # all those it is shared with.
        population, real, variance = context
        size = len(population)
        among = -torch.cdist(population, population).square() / (2 * variance)
        debit = among.fill_diagonal_(-math.inf).softmax(1).sum(0)
        credit = _shares_leaving_one_out(-torch.cdist(real, population).square() / (2 * variance)).mean(0) * size
        return (debit - credit)[own]


class BatchMMD(Objective):
    """The paper's comparison (Fig. 7): one squared MMD of the two batches as every sample's score.

    The unbiased estimate of Gretton et al. (2012, lemma 6). It has no gradient through a sample's features; that of the
    squared MMD is twice the `MMDWitness`'s.
    """

    pathwise = False

    def block_score(
        self,
        to_population: Float[Tensor, "b m"],
        to_real: Float[Tensor, "b l"],
        own: Int[Tensor, " b"],
        context: tuple[Float[Tensor, "m d"], Float[Tensor, "l d"], float],
    ) -> Float[Tensor, " b"]:
        """The same number for every sample."""
        generated, real, variance = context

        def kernel(x: Tensor, y: Tensor) -> Tensor:
            return torch.exp(-torch.cdist(x, y).square() / (2 * variance))

        def within(x: Tensor) -> Tensor:  # the mean over pairs of different samples; each has kernel 1 to itself
            return (kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1))

        mmd = within(generated) + within(real) - 2 * kernel(generated, real).mean()
        return mmd.expand(len(own))


def _shares_leaving_one_out(exponents: Float[Tensor, "l m"]) -> Float[Tensor, "l m"]:
    """Softmax of each row over all but one of its places, averaged over which one is left out; m is at least 2.

    With r the softmax of the whole row, place j has r_j / (1 - r_n) where n != j is left out. Taking the largest place
    out of the sum would cancel its digits, so that row is normalised anew; the others have r_n at most 1/2.
    """
    largest = exponents.argmax(1, keepdim=True)
    without_largest = exponents.scatter(1, largest, -math.inf).softmax(1)
    r = exponents.softmax(1)
    others = (1 / (1 - r)).scatter(1, largest, 0.0)
    return (r * (others.sum(1, keepdim=True) - others) + without_largest) / exponents.shape[1]
