"""The likelihood of readings, through what is known of the extractor's errors."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

TINY = 1e-6
"""Smallest probability of a reading: a reading that no sample explains would have an infinite score otherwise."""


class ReadingLikelihood(nn.Module):
    """Scores numbers of objects by the likelihood of the target's readings, through a measured channel.

    With h the target's distribution of readings r, P(r | n) the channel and q(n) the model's distribution of the number
    n, each name alone, the score of a sample with number n is

        s(n) = 1 - w(n),    w(n) = sum_r h(r) P(r | n) / sum_m q(m) P(r | m),

    the derivative of the forward KL divergence from h to qP by q(n), up to a constant that makes its mean zero.
    REINFORCE with it therefore maximises the likelihood, and its stationary points of full support are those of
    expectation-maximisation. With a channel without error the optimum is the empirical distribution. No image is
    rendered. Not in the paper; where kernels compare blurred readings, the blur hides the difference.

    Attributes:
        names: What is counted.
        channel: P(r | n) by name, number and reading; the last number stands for all larger ones, and has no reading.
        target: h by name and reading.

    Example:
        >>> likelihood = ReadingLikelihood(["car"], torch.eye(3)[None], torch.tensor([[0.0, 0.5, 0.5]]))
        >>> population = torch.tensor([[0], [1], [1], [2]])
        >>> likelihood.scores(population, population)[:, 0].tolist()  # fewer scenes without a car, more with two
        [1.0, 0.0, 0.0, -1.0]
    """

    channel: Tensor
    target: Tensor

    def __init__(self, names: Sequence[str], channel: Float[Tensor, "k n r"], target: Float[Tensor, "k r"]) -> None:
        super().__init__()
        self.names = list(names)
        self.register_buffer("channel", F.pad(channel, (0, 0, 0, 1)), persistent=False)
        self.register_buffer("target", target, persistent=False)

    def scores(self, numbers: Int[Tensor, "b k"], population: Int[Tensor, "m k"]) -> Float[Tensor, "b k"]:
        """Compute the score of each sample by name, low where the target has more of its number than the model.

        Args:
            numbers: Numbers of objects of the samples to score.
            population: Those of all samples, also of other processes, whose distribution is taken for q.
        """
        weight = (self.channel * (self.target / self.readings(population).clamp(min=TINY)).unsqueeze(1)).sum(2)
        return 1 - weight.T.gather(0, numbers.clamp(max=self.channel.shape[1] - 1))

    def readings(self, population: Int[Tensor, "m k"]) -> Float[Tensor, "k r"]:
        """Compute qP, the distribution of readings of a population."""
        size = self.channel.shape[1]
        number = F.one_hot(population.clamp(max=size - 1), size).float().mean(0)
        return (number.unsqueeze(2) * self.channel).sum(1)

    def divergence(self, population: Int[Tensor, "m k"], target: Float[Tensor, "k r"] | None = None) -> Tensor:
        """Compute the KL divergence from a target's readings to the population's, by name, in nats.

        Args:
            population: Numbers of objects of the model's samples.
            target: Distribution of readings of other target images, such as held-out ones; those that are learned from
                by default.
        """
        h = self.target if target is None else target
        return (h * (h.clamp(min=TINY) / self.readings(population).clamp(min=TINY)).log()).sum(1)
