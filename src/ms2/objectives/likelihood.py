"""The likelihood of readings, through what is known of the extractor's errors."""

from collections.abc import Sequence

import torch
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
        >>> likelihood.scores(population, likelihood.readings(population))[:, 0].tolist()  # more scenes with two cars
        [1.0, 0.0, 0.0, -1.0]
    """

    channel: Tensor
    target: Tensor
    number: Tensor

    def __init__(self, names: Sequence[str], channel: Float[Tensor, "k n r"], target: Float[Tensor, "k r"]) -> None:
        super().__init__()
        self.names = list(names)
        self.register_buffer("channel", F.pad(channel, (0, 0, 0, 1)), persistent=False)
        self.register_buffer("target", target, persistent=False)
        self.register_buffer("number", torch.arange(self.channel.shape[1], device=channel.device), persistent=False)

    def readings(self, population: Int[Tensor, "m k"]) -> Float[Tensor, "k r"]:
        """Compute qP, the distribution of readings of all samples, also of other processes, for which q stands."""
        number = (population.clamp(max=len(self.number) - 1).unsqueeze(2) == self.number).float().mean(0)
        return torch.einsum("kn,knr->kr", number, self.channel)

    def scores(self, numbers: Int[Tensor, "b k"], readings: Float[Tensor, "k r"]) -> Float[Tensor, "b k"]:
        """Compute the score of each sample by name, low where the target has more of its number than the model.

        Args:
            numbers: Numbers of objects of the samples.
            readings: The population's `readings`.
        """
        weight = torch.einsum("knr,kr->nk", self.channel, self.target / readings.clamp(min=TINY))
        return 1 - weight.gather(0, numbers.clamp(max=len(self.number) - 1))

    def divergence(self, readings: Float[Tensor, "k r"], target: Float[Tensor, "k r"] | None = None) -> Tensor:
        """Compute the KL divergence from a target's readings to the population's, by name, in nats.

        Args:
            readings: The population's `readings`.
            target: Distribution of readings of other target images, such as held-out ones; those that are learned from
                by default.
        """
        h = self.target if target is None else target
        return (h * (h.clamp(min=TINY) / readings.clamp(min=TINY)).log()).sum(1)
