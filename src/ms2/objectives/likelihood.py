"""The likelihood of readings, through what is known of the extractor's errors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

TINY = 1e-6
"""Smallest probability of a reading: a reading that no sample explains would have an infinite score otherwise."""


class ReadingLikelihood(nn.Module):
    """Scores scenes by the likelihood of the target's readings, through a measured channel.

    With h_k the target's distribution of readings r of name k, p_k(r | x) the channel and q(x) the model, the score of
    a sample x is

        s_k(x) = 1 - w_k(x),    w_k(x) = sum_r h_k(r) p_k(r | x) / sum_y q(y) p_k(r | y),

    the derivative of the forward KL divergence from h_k to the model's readings by q(x), up to a constant that makes
    its mean zero. REINFORCE with it therefore maximises the likelihood, and its stationary points of full support are
    those of expectation-maximisation. With a channel without error the optimum is the empirical distribution. No image
    is rendered. Not in the paper; where kernels compare blurred readings, the blur hides the difference.

    Attributes:
        names: What is read.
        target: h by name and reading.

    Example:
        >>> likelihood = ReadingLikelihood(["car"], torch.tensor([[0.0, 0.5, 0.5]]))
        >>> given = torch.eye(3)[[0, 1, 1, 2]][:, None]  # readings of samples with 0, 1, 1 and 2 cars, without error
        >>> likelihood.scores(given, likelihood.readings(given))[:, 0].tolist()  # more scenes with two cars
        [1.0, 0.0, 0.0, -1.0]
    """

    target: Tensor

    def __init__(self, names: Sequence[str], target: Float[Tensor, "k r"]) -> None:
        super().__init__()
        self.names = list(names)
        self.register_buffer("target", target, persistent=False)

    def readings(self, population: Float[Tensor, "m k r"]) -> Float[Tensor, "k r"]:
        """Compute the model's distribution of readings.

        Args:
            population: Distribution of the readings of each sample, also of other processes: they stand for q.
        """
        return population.mean(0)

    def scores(self, given: Float[Tensor, "b k r"], readings: Float[Tensor, "k r"]) -> Float[Tensor, "b k"]:
        """Compute the score of each sample by name, low where the target has more of its readings than the model.

        Args:
            given: Distribution of the readings of each sample.
            readings: The population's `readings`.
        """
        return 1 - torch.einsum("bkr,kr->bk", given, self.target / readings.clamp(min=TINY))

    @staticmethod
    def smoothed(
        scores: Float[Tensor, "m k"], numbers: Int[Tensor, "m k"], fraction: float, largest: int
    ) -> Float[Tensor, "m k"]:
        """Compute scores whose optimum is smooth: expectation-maximisation with a smoothing step.

        Maximum likelihood of a blurred distribution has few numbers with gaps between them, as noise of the readings is
        sharpened. Silverman et al. (1990, EMS) average the distribution of numbers over neighbours after each step of
        expectation-maximisation, q <- S (q w): the scores here are zero where q = S (q w). S gives each neighbour half
        the fraction; at 0, what would go below it stays.

        Args:
            scores: The scores of all samples, which stand for q.
            numbers: Their numbers of each name.
            fraction: Fraction of the mass of a number that goes to its two neighbours; 0 changes nothing.
            largest: Number that larger ones are taken for.
        """
        size = largest + 1
        numbers = numbers.clamp(max=largest)
        place = numbers.unsqueeze(2) == torch.arange(size, device=numbers.device)
        share = place.to(scores.dtype).mean(0)  # k n
        expected = torch.einsum("mkn,mk->kn", place.to(scores.dtype), 1 - scores) / len(scores)
        below = torch.cat([expected[:, :1], expected[:, :-1]], 1)
        above = torch.cat([expected[:, 1:], expected.new_zeros(len(expected), 1)], 1)
        change = fraction * ((below + above) / 2 - expected) / share.clamp(min=TINY)
        return scores - change.gather(1, numbers.T).T

    def divergence(self, readings: Float[Tensor, "k r"], target: Float[Tensor, "k r"] | None = None) -> Tensor:
        """Compute the KL divergence from a target's readings to the population's, by name, in nats.

        Args:
            readings: The population's `readings`.
            target: Distribution of readings of other target images, such as held-out ones; those that are learned from
                by default.
        """
        h = self.target if target is None else target
        return (h * (h.clamp(min=TINY) / readings.clamp(min=TINY)).log()).sum(1)
