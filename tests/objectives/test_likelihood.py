"""The likelihood of readings: its derivative, and where it is greatest."""

import itertools

import pytest
import torch
from helpers import rng
from torch import Tensor

from ms2.objectives.likelihood import ReadingLikelihood


def blurred(size: int, error: float = 0.25) -> Tensor:
    """A channel that reads a number as one of its neighbours with some probability."""
    channel = torch.eye(size) * (1 - error)
    for n in range(size):
        for near in (max(n - 1, 0), min(n + 1, size - 1)):
            channel[n, near] += error / 2
    return channel


def given(channel: Tensor, samples: Tensor) -> Tensor:
    """The distribution of readings of samples, of one name by a channel; of no reading for numbers that it lacks."""
    table = torch.cat([channel, torch.zeros(1, channel.shape[1])])
    return table[samples.clamp(max=len(channel))]


def population(q: Tensor, m: int = 1200) -> Tensor:
    """Samples whose distribution is q."""
    return torch.arange(len(q)).repeat_interleave((q * m).round().long())[:, None]


@pytest.mark.parametrize("error", [0.0, 0.25, 0.6])
def test_scores_are_the_derivative_of_the_divergence(error: float) -> None:
    q = torch.tensor([0.25, 0.25, 0.25, 0.25], requires_grad=True)
    h, channel = torch.tensor([0.1, 0.2, 0.3, 0.4]), blurred(4, error)
    divergence = (h * (h / (q @ channel)).log()).sum()
    (derivative,) = torch.autograd.grad(divergence, q)
    likelihood, samples = ReadingLikelihood(["n"], h[None]), given(channel, population(q.detach()))
    scores = likelihood.scores(given(channel, torch.arange(4)[:, None]), likelihood.readings(samples))[:, 0]
    torch.testing.assert_close(scores, derivative + 1)
    assert (q.detach() * scores).sum().item() == pytest.approx(0, abs=1e-6)
    assert likelihood.divergence(likelihood.readings(samples)).item() == pytest.approx(divergence.item(), abs=1e-6)


def fitted(h: Tensor, channel: Tensor, steps: int = 300) -> Tensor:
    """Follow the gradient of the expected score by q, which is enumerated, from the uniform distribution."""
    likelihood, size = ReadingLikelihood(["n"], h[None]), len(channel)
    logits = torch.zeros(size, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.05)
    for _ in range(steps):
        q = logits.softmax(0)
        readings = likelihood.readings(given(channel, population(q.detach(), 10_000)))
        scores = likelihood.scores(given(channel, torch.arange(size)[:, None]), readings)[:, 0]
        optimizer.zero_grad()
        (q * scores).sum().backward()  # the mean of score times grad log q, over all numbers
        optimizer.step()
    return logits.softmax(0).detach()


def test_without_error_the_optimum_is_the_empirical_distribution() -> None:
    h = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1])
    found = fitted(h, torch.eye(5))
    torch.testing.assert_close(found, h, atol=2e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_that_of_expectation_maximisation(seed: int) -> None:
    channel, h = blurred(4, 0.4), torch.rand(4, generator=rng(seed)).softmax(0)
    q = torch.full((4,), 0.25)
    for _ in range(5000):
        q = q * (channel * (h / (q @ channel))).sum(1)
    found = fitted(h, channel, 600)
    assert torch.special.xlogy(h, found @ channel).sum() == pytest.approx(
        torch.special.xlogy(h, q @ channel).sum().item(), abs=1e-5
    )
    torch.testing.assert_close(found, q, atol=0.02, rtol=0)


def test_names_are_scored_apart() -> None:
    likelihood = ReadingLikelihood(["a", "b"], torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    samples = given(torch.eye(2), torch.tensor(list(itertools.product([0, 1], [0, 1]))))
    scores = likelihood.scores(samples, likelihood.readings(samples))
    torch.testing.assert_close(scores[:, 0], torch.zeros(4))
    torch.testing.assert_close(scores[:, 1], torch.tensor([-0.8, 0.8, -0.8, 0.8]))


def test_numbers_that_no_image_shows_become_rarer() -> None:
    likelihood = ReadingLikelihood(["n"], torch.tensor([[0.5, 0.5]]))
    samples = given(torch.eye(2), torch.tensor([[0], [1], [5]]))
    scores = likelihood.scores(samples, likelihood.readings(samples))[:, 0]
    assert scores[2] == scores.max() == 1


def test_readings_that_no_sample_explains_are_finite() -> None:
    likelihood = ReadingLikelihood(["n"], torch.tensor([[0.5, 0.5]]))
    readings = likelihood.readings(given(torch.eye(2), torch.zeros(4, 1, dtype=torch.long)))
    scores = likelihood.scores(given(torch.eye(2), torch.tensor([[0], [1]])), readings)
    assert scores.isfinite().all() and scores[1] < scores[0]
