"""Tests of the baselines: the expected gradient by enumeration of all batches, invariances, recursion by hand."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms2.core.errors import UserError
from ms2.gradients.advantages import Advantage, LeaveOneOut, MovingAverage, Normalised

LOGITS = torch.tensor([0.2, -0.7, 1.1, 0.0]).double()
COSTS = torch.tensor([1.5, -0.3, 0.4, 6.0]).double()
"""Score of each of four outcomes; a sample's score depends on its own outcome alone."""

SCORES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9)


def exact_gradient() -> Tensor:
    """Gradient of the expected cost with respect to the logits."""
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(0) * COSTS).sum().backward()
    return logits.grad


def expected_gradient(advantage: Advantage, size: int, costs: Tensor = COSTS, coupling: Tensor | None = None) -> Tensor:
    """E[mean_j advantage_j grad log q(T_j)] over all batches; the advantage forgets each batch again.

    With a symmetric coupling, a sample's score is its cost plus its mean coupling with the batch's others.
    """
    q, state = LOGITS.softmax(0), {k: v.clone() for k, v in advantage.state_dict().items()}
    total = torch.zeros_like(q)
    for batch in itertools.product(range(len(q)), repeat=size):
        t = torch.tensor(batch)
        score = costs[t]
        if coupling is not None:
            score = score + (coupling[t][:, t].sum(1) - coupling[t, t]) / (size - 1)
        advantage.load_state_dict(state)
        grad_log_q = torch.nn.functional.one_hot(t, len(q)) - q
        total += q[t].prod() * (advantage(score)[:, None] * grad_log_q).mean(0)
    return total


# --- bias ---


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_leaving_one_out_is_unbiased(size: int, shift: float) -> None:
    torch.testing.assert_close(expected_gradient(LeaveOneOut(), size, COSTS + shift), exact_gradient())


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leaving_one_out_of_scores_that_depend_on_one_another_is_biased_by_one_over_the_batch(size: int) -> None:
    """As with the MMD's witness: the others' scores hold their coupling with the sample itself."""
    coupling = torch.exp(-((torch.arange(4.0)[:, None] - torch.arange(4.0)) ** 2)).double()
    logits = LOGITS.clone().requires_grad_()
    q = logits.softmax(0)
    (gradient,) = torch.autograd.grad(q @ COSTS + q @ coupling @ q / 2, logits, retain_graph=True)
    (bias,) = torch.autograd.grad(q @ coupling @ q / 2, logits)
    expected = gradient - bias / (size - 1)
    torch.testing.assert_close(expected_gradient(LeaveOneOut(), size, coupling=coupling), expected)


@pytest.mark.parametrize("size", [2, 3])
def test_a_fresh_moving_average_shortens_the_gradient(size: int) -> None:
    """Its first baseline is the batch's own mean, whose share 1/b of each sample's score is lost."""
    advantage = MovingAverage().double()
    torch.testing.assert_close(expected_gradient(advantage, size), (1 - 1 / size) * exact_gradient())


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("baseline", [0.0, -3.0])
def test_a_moving_average_shortens_the_gradient_by_the_share_of_this_batch(size: int, baseline: float) -> None:
    """Whatever it was before, the baseline holds a sample's own score with weight (1 - decay) / b."""
    advantage = MovingAverage(decay=0.75).double()
    advantage.baseline.fill_(baseline)
    torch.testing.assert_close(expected_gradient(advantage, size), (1 - 0.25 / size) * exact_gradient())


def test_normalising_batches_of_two_keeps_only_which_is_better() -> None:
    """Advantages are +1 and -1: the gradient is that of q's chance to draw the costlier, whatever the costs."""
    pairs = (COSTS[:, None] > COSTS).double() - (COSTS[:, None] < COSTS).double()
    q = LOGITS.softmax(0)
    ranked = pairs @ q  # expected advantage of each outcome
    expected = q * ranked - q * (q * ranked).sum()
    torch.testing.assert_close(expected_gradient(Normalised(), 2), expected, rtol=1e-6, atol=0)


def test_normalising_keeps_the_direction_of_two_outcomes() -> None:
    """Where a score has two values only, the gradient's length changes, and nothing else."""
    costs = torch.tensor([2.0, -1.0, -1.0, 2.0]).double()
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(0) * costs).sum().backward()
    gradient = expected_gradient(Normalised(), 3, costs)
    assert torch.cosine_similarity(gradient, logits.grad, dim=0).item() == pytest.approx(1)
    assert gradient.norm() > 0.1


# --- each advantage's formula ---


@given(SCORES)
@settings(max_examples=50, deadline=None)
def test_leaving_one_out_subtracts_the_mean_of_the_others(scores: list[float]) -> None:
    advantage = LeaveOneOut()(torch.tensor(scores, dtype=torch.float64))
    others = [sum(scores) - s for s in scores]
    n = len(scores)
    expected = [s - o / (n - 1) if n > 1 else 0.0 for s, o in zip(scores, others, strict=True)]
    assert advantage.tolist() == pytest.approx(expected, abs=1e-6)


def test_normalised_advantages_have_mean_zero_and_deviation_one() -> None:
    advantage = Normalised()(torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0]))
    assert advantage.mean().item() == pytest.approx(0, abs=1e-6)
    assert advantage.square().mean().item() == pytest.approx(1)


@given(st.integers(0, 100), st.floats(-5, 5), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_normalising_takes_off_shift_and_positive_scale(seed: int, shift: float, scale: float) -> None:
    score = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(Normalised()(scale * score + shift), Normalised()(score), atol=1e-5, rtol=0)
    torch.testing.assert_close(Normalised()(-score), -Normalised()(score), atol=1e-5, rtol=0)


def test_least_is_added_to_the_deviation() -> None:
    assert Normalised(eps=0.5)(torch.tensor([1.0, 2.0])).tolist() == pytest.approx([-0.5, 0.5])


@pytest.mark.parametrize("make", [LeaveOneOut, Normalised, MovingAverage])
@given(value=st.floats(-1000, 1000, width=32), n=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_equal_scores_give_no_gradient(make: type[Advantage], value: float, n: int) -> None:
    """Up to the rounding of their mean, which dividing by the deviation must not blow up: BatchMMD's are equal."""
    rounding = 1e-6 if make is Normalised else 1e-6 * max(1, abs(value))
    assert make()(torch.full((n,), value)).abs().max().item() <= rounding


def test_the_moving_average_starts_at_the_first_mean_and_follows() -> None:
    advantage = MovingAverage(decay=0.75)
    assert advantage.baseline.isnan()
    assert advantage(torch.tensor([1.0, 3.0])).tolist() == [-1, 1]  # baseline 2
    assert advantage(torch.tensor([6.0, 6.0])).tolist() == [3, 3]  # baseline 0.75 * 2 + 0.25 * 6 = 3
    assert advantage(torch.tensor([-2.0, 0.0])).tolist() == [-4, -2]  # baseline 0.75 * 3 - 0.25 = 2
    assert advantage.baseline.item() == 2


@given(st.lists(SCORES, min_size=1, max_size=6), st.sampled_from([0.0, 0.5, 0.99]))
@settings(max_examples=30, deadline=None)
def test_the_moving_average_is_a_weighted_sum_of_means(batches: list[list[float]], decay: float) -> None:
    advantage = MovingAverage(decay).double()
    for batch in batches:
        advantage(torch.tensor(batch, dtype=torch.float64))
    means = [sum(batch) / len(batch) for batch in batches]
    steps = len(means)
    weights = [decay ** (steps - 1)] + [(1 - decay) * decay ** (steps - 1 - t) for t in range(1, steps)]
    expected = sum(w * m for w, m in zip(weights, means, strict=True))
    assert advantage.baseline.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("batches", [0, 3])
def test_the_moving_average_survives_a_checkpoint(batches: int) -> None:
    advantage, copy = MovingAverage(), MovingAverage()
    for i in range(batches):
        advantage(torch.tensor([float(i), 2.0]))
    copy.load_state_dict(advantage.state_dict())
    score = torch.tensor([4.0, 7.0])
    assert copy(score).tolist() == advantage(score).tolist()
    assert copy.baseline.item() == advantage.baseline.item()


def test_only_the_moving_average_has_memory() -> None:
    assert set(MovingAverage().state_dict()) == {"baseline"}
    for advantage in (LeaveOneOut(), Normalised()):
        before = advantage(torch.tensor([1.0, 2.0, 4.0]))
        advantage(torch.tensor([50.0, 7.0]))
        assert torch.equal(advantage(torch.tensor([1.0, 2.0, 4.0])), before)
        assert not advantage.state_dict()


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_decay_must_lie_below_one(decay: float) -> None:
    with pytest.raises(UserError, match=r"decay must be (at least 0|less than 1), not"):
        MovingAverage(decay)
