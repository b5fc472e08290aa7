"""The likelihood of readings: its derivative, and where it is greatest."""

import itertools
import math

import hypothesis
import pytest
import torch
from helpers import rng
from hypothesis import strategies as st
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


def smooth_fit(h: Tensor, channel: Tensor, smoothing: float, steps: int = 400) -> Tensor:
    """Repeat q <- q (1 - score): expectation-maximisation with a smoothing step, from the uniform distribution.

    Samples are weighted by repetition: 20,000 of them.
    """
    likelihood, q = ReadingLikelihood(["n"], h[None]), torch.full((len(channel),), 1 / len(channel))
    for _ in range(steps):
        samples = population(q, 20_000)
        found = given(channel, samples)
        scores = likelihood.scores(found, likelihood.readings(found))
        scores = likelihood.smoothed(scores, samples, smoothing, len(channel) - 1)
        q = torch.zeros_like(q).scatter_add(0, samples[:, 0], 1 - scores[:, 0])
        q /= q.sum()
    return q


def test_a_smoothing_step_is_silvermans() -> None:
    """The fixed point is that of q <- S (q w), computed with matrices."""
    channel, h = blurred(6, 0.6), torch.tensor([0.3, 0.05, 0.25, 0.2, 0.15, 0.05])
    smooth = torch.eye(6) * 0.8
    for n in range(6):
        smooth[max(n - 1, 0), n] += 0.1
        if n < 5:
            smooth[n + 1, n] += 0.1
    q = torch.full((6,), 1 / 6)
    for _ in range(400):
        q = smooth @ (q * (channel @ (h / (q @ channel))))
        q /= q.sum()
    torch.testing.assert_close(smooth_fit(h, channel, 0.2), q, atol=2e-3, rtol=0)


def test_no_smoothing_changes_nothing() -> None:
    scores, numbers = torch.randn(50, 2, generator=rng()), torch.randint(5, (50, 2), generator=rng())
    assert torch.equal(ReadingLikelihood.smoothed(scores, numbers, 0.0, 4), scores)


@hypothesis.given(st.integers(0, 10**6), st.floats(0, 1))
def test_scores_that_are_smoothed_keep_the_mass(seed: int, fraction: float) -> None:
    """Where all numbers but the largest occur, the mean of the weights 1 - score stays what it was."""
    draw = rng(seed)
    numbers = torch.cat([torch.arange(6), torch.randint(6, (60,), generator=draw)])[:, None]
    scores = 1 - torch.rand(66, 1, generator=draw) * (numbers < 5)  # none of the largest: nothing leaves the range
    smoothed = ReadingLikelihood.smoothed(scores, numbers, fraction, 5)
    torch.testing.assert_close(smoothed.mean(), scores.mean(), atol=1e-5, rtol=1e-5)


def test_a_smooth_distribution_is_found_again_from_few_blurred_readings() -> None:
    """A third of the objects are read, in 300 images: maximum likelihood alone has gaps."""
    n = torch.arange(13.0)
    truth = 0.8**n / (0.8**n).sum()
    log_odds = torch.lgamma(n[:, None] + 1) - torch.lgamma(n + 1) - torch.lgamma((n[:, None] - n).clamp(min=0) + 1)
    channel = torch.where(n <= n[:, None], (log_odds + n * math.log(0.4) + (n[:, None] - n) * math.log(0.6)).exp(), 0)
    errors = {0.0: 0.0, 0.2: 0.0}
    for seed in range(3):
        readings = torch.multinomial(truth @ channel, 300, True, generator=rng(seed))
        h = torch.bincount(readings, minlength=13) / 300
        for smoothing in errors:
            errors[smoothing] += float((smooth_fit(h, channel, smoothing, 150) - truth).abs().sum()) / 6
    assert errors[0.2] < 0.12 and errors[0.0] > 0.15, errors
