"""Tests of the scores: densities of torch.distributions, plain loops, enumeration, and the target as the optimum."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ms2.core.errors import UserError
from ms2.objectives.base import KernelObjective, Objective
from ms2.objectives.energy import EnergyDistance
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness
from ms2.objectives.sliced_wasserstein import SlicedWasserstein

EVERY: list[Callable[[], Objective]] = [
    lambda: KDE(0.5),
    lambda: KDE(0.5, leave_one_out=False),
    lambda: ForwardKL(0.5),
    lambda: MMDWitness(0.5),
    lambda: BatchMMD(0.5),
    EnergyDistance,
    SlicedWasserstein,
]
EVERY_NAME = ["KDE", "KDE with self", "ForwardKL", "MMDWitness", "BatchMMD", "EnergyDistance", "SlicedWasserstein"]
PLACES = torch.tensor([[0.0], [1.0], [2.5]]).double()
"""Features of three categories on a line, for what is enumerated."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score_of(objective: Objective, x: Tensor, real: Tensor) -> Tensor:
    """Scores of one block where all samples are scored at once."""
    return objective({"f": x}, {"f": x}, torch.arange(len(x)), {"f": real})[0]


def log_density(x: Tensor, samples: Tensor, variance: float) -> Tensor:
    """Kernel density estimate as a mixture of Gaussians."""
    components = MultivariateNormal(samples, variance * torch.eye(samples.shape[1]).double())
    return MixtureSameFamily(Categorical(torch.ones(len(samples)).double()), components).log_prob(x)


def gauss(a: Tensor, b: Tensor, variance: float) -> float:
    return math.exp(-sum((u - v) ** 2 for u, v in zip(a.tolist(), b.tolist(), strict=True)) / (2 * variance))


def one_hot(categories: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(categories, k).double()


# --- KDE ---


@given(st.integers(2, 7), st.integers(1, 4), st.floats(0.05, 3), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_kde_with_self_is_a_ratio_of_gaussian_mixtures(m: int, d: int, bandwidth: float, seed: int) -> None:
    x, real = normal(m, d, seed=seed), normal(m, d, seed=seed + 1) + 0.5
    expected = log_density(x, x, bandwidth * d) - log_density(x, real, bandwidth * d)
    torch.testing.assert_close(score_of(KDE(bandwidth, leave_one_out=False), x, real), expected)


@given(st.integers(2, 7), st.integers(1, 4), st.floats(0.05, 3), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_kde_leaving_one_out_drops_the_own_kernel_and_one_real_sample(
    m: int, d: int, bandwidth: float, seed: int
) -> None:
    x, real = normal(m, d, seed=seed), normal(m, d, seed=seed + 1) + 0.5
    generated = [log_density(x[j], x[torch.arange(m) != j], bandwidth * d) for j in range(m)]
    expected = torch.stack(generated) - log_density(x, real[:-1], bandwidth * d)
    torch.testing.assert_close(score_of(KDE(bandwidth), x, real), expected)


def test_kde_is_finite_far_from_everything() -> None:
    x = torch.tensor([[0.0], [1000.0], [2000.0]])
    for leave_one_out in (True, False):
        assert score_of(KDE(1e-2, leave_one_out=leave_one_out), x, -x).isfinite().all()


@pytest.mark.parametrize("bandwidth", [0.01, 1.0])
def test_equal_samples_in_both_sets_give_zero_scores(bandwidth: float) -> None:
    x = normal(20, 3)
    score = score_of(KDE(bandwidth, leave_one_out=False), x, x[torch.randperm(20)])
    torch.testing.assert_close(score, torch.zeros_like(score), atol=1e-10, rtol=0)


def test_kde_ignores_surplus_real_samples() -> None:
    x, real = normal(10, 2), normal(30, 2, seed=1)
    for leave_one_out, used in ((True, 9), (False, 10)):
        objective = KDE(leave_one_out=leave_one_out)
        torch.testing.assert_close(score_of(objective, x, real), score_of(objective, x, real[:used]))
        assert not torch.allclose(score_of(objective, x, real), score_of(objective, x, real[1:]))


def test_the_mean_score_estimates_the_reverse_divergence() -> None:
    """Two Gaussians, widened by the kernel: KL = shift^2 / (2 (1 + H)), within five standard errors."""
    n, shift, bandwidth = 3000, 0.8, 0.05
    score = score_of(KDE(bandwidth), normal(n, 1) + shift, normal(n, 1, seed=1))
    assert score.mean().item() == pytest.approx(shift**2 / 2 / (1 + bandwidth), abs=5 * score.std().item() / n**0.5)


# --- all objectives: blocks, bandwidths, populations ---


@pytest.mark.parametrize("make", EVERY, ids=EVERY_NAME)
def test_scores_add_over_blocks(make: Callable[[], Objective]) -> None:
    blocks, real = (
        {"a": normal(8, 2), "b": normal(8, 5, seed=1)},
        {"a": normal(8, 2, seed=2), "b": normal(8, 5, seed=3)},
    )
    score, sharpness = make()(blocks, blocks, torch.arange(8), real)
    parts = [score_of(make(), blocks[name], real[name]) for name in blocks]
    torch.testing.assert_close(score, parts[0] + parts[1])
    assert set(sharpness) == ({"a", "b"} if isinstance(make(), KernelObjective) else set())


def test_each_block_has_its_bandwidth_and_others_are_left_out() -> None:
    blocks, real = {k: normal(8, 3, seed=i) for i, k in enumerate("abc")}, {k: normal(8, 3, seed=9) for k in "abc"}
    score, sharpness = KDE({"a": 0.1, "c": 2.0})(blocks, blocks, torch.arange(8), real)
    expected = score_of(KDE(0.1), blocks["a"], real["a"]) + score_of(KDE(2.0), blocks["c"], real["c"])
    torch.testing.assert_close(score, expected)
    assert set(sharpness) == {"a", "c"}
    chosen, _ = KDE(0.1, blocks=["a"])(blocks, blocks, torch.arange(8), real)
    torch.testing.assert_close(chosen, score_of(KDE(0.1), blocks["a"], real["a"]))


def test_sharpness_is_half_the_mean_squared_distance_over_the_variance() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    _, sharpness = KDE(0.5)({"f": x}, {"f": x}, torch.arange(2), {"f": x + 7})
    assert sharpness["f"].item() == pytest.approx((0 + 25 + 25 + 0) / 4 / (2 * 0.5 * 2))


# --- degenerate kernels ---

KERNELS = [
    (KDE, {}, "the nearest one alone"),
    (KDE, {"leave_one_out": False}, "its own kernel alone"),
    (ForwardKL, {}, "the nearest one alone"),
    (MMDWitness, {}, "not one other within"),
    (BatchMMD, {}, "not one other within"),
]
every_kernel = pytest.mark.parametrize(("cls", "settings", "narrow"), KERNELS)


def degeneracy(objective: Objective, x: Tensor, real: Tensor) -> str:
    found = objective.degenerate_kernels({"f": x}, {"f": real})
    return " ".join(found["f"]) if found else ""


def test_every_kernel_is_judged_here() -> None:
    assert {type(make()) for make in EVERY if isinstance(make(), KernelObjective)} == {cls for cls, *_ in KERNELS}


@every_kernel
def test_the_papers_bandwidth_is_degenerate_unless_features_have_unit_variance(
    cls: type[KernelObjective], settings: dict[str, bool], narrow: str
) -> None:
    x, real = normal(256, 64), normal(256, 64, seed=1) + 0.1
    objective = cls(1.0, **settings)
    assert not degeneracy(objective, x, real)
    assert "only the features' means" in degeneracy(objective, 0.2 * x, 0.2 * real), "a variance of 0.04"
    found = degeneracy(objective, 30 * x, 30 * real)
    assert "too narrow" in found and narrow in found and "raise" in found


@pytest.mark.parametrize(
    ("cls", "settings"), [(KDE, {}), (KDE, {"leave_one_out": False}), (ForwardKL, {}), (MMDWitness, {})]
)
def test_scores_of_kernels_that_are_called_too_wide_are_linear(
    cls: type[KernelObjective], settings: dict[str, bool]
) -> None:
    """So that they push means alone, though the target's spreads are others too."""
    x, real = normal(256, 3), normal(256, 3, seed=1) * torch.tensor([0.5, 1.0, 2.0]) + 1
    linear = []
    for bandwidth in (0.1, 1e3):
        score = score_of(cls(bandwidth, **settings), x, real)
        features = torch.cat([x, torch.ones(256, 1)], 1)
        rest = score - features @ torch.linalg.lstsq(features, score[:, None]).solution[:, 0]
        linear.append(float(1 - rest.var() / score.var()))
        assert ("too wide" in degeneracy(cls(bandwidth, **settings), x, real)) == (bandwidth == 1e3)
    assert linear[0] < 0.9 and linear[1] > 0.99


@every_kernel
def test_a_narrow_kernel_between_counts_is_a_histogram(
    cls: type[KernelObjective], settings: dict[str, bool], narrow: str
) -> None:
    """Of features that coincide: its sharpness is 4,000 here."""
    draw = torch.Generator().manual_seed(0)
    x, real = (one_hot(torch.randint(11, (256,), generator=draw), 11) for _ in range(2))
    assert not degeneracy(cls(1e-5, **settings), x, real)


@every_kernel
def test_what_all_samples_share_is_no_matter_of_bandwidth(
    cls: type[KernelObjective], settings: dict[str, bool], narrow: str
) -> None:
    same = torch.ones(16, 3).double()
    assert "all images have the same features" in degeneracy(cls(1.0, **settings), same, same)
    assert not degeneracy(cls(1.0, **settings), same, same + normal(16, 3)), (
        "the target differs: there is much to learn"
    )


def test_blocks_are_judged_one_by_one_and_without_a_kernel_none() -> None:
    x = {"good": normal(256, 4), "flat": 1e-3 * normal(256, 4), "unused": 1e-3 * normal(256, 4)}
    assert set(KDE(0.5, blocks=["good", "flat"]).degenerate_kernels(x, x)) == {"flat"}
    assert not KDE(0.5, relative_bandwidth=True).degenerate_kernels(x, x)
    for objective in (EnergyDistance(), SlicedWasserstein()):
        assert objective.degenerate_kernels(x, x) == {}


# --- parts of populations, and orders ---


@pytest.mark.parametrize("make", EVERY, ids=EVERY_NAME)
@given(seed=st.integers(0, 100), cut=st.integers(1, 31))
@settings(max_examples=10, deadline=None)
def test_scoring_in_parts_equals_scoring_at_once(make: Callable[[], Objective], seed: int, cut: int) -> None:
    """What every process does with its part of a population gathered from all, in whatever order."""
    population, real = {"f": normal(32, 3, seed=seed)}, {"f": normal(32, 3, seed=seed + 1)}
    order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
    whole, sharpness = make()(population, population, torch.arange(32), real)
    parts = [make()({"f": population["f"][own]}, population, own, real) for own in (order[:cut], order[cut:])]
    torch.testing.assert_close(torch.cat([score for score, _ in parts]), whole[order])
    weighted = {name: sum(len(score) * sharp[name] for score, sharp in parts) / 32 for name in sharpness}
    torch.testing.assert_close(weighted, sharpness)


@pytest.mark.parametrize("make", EVERY, ids=EVERY_NAME)
def test_scores_follow_their_samples_when_these_are_reordered(make: Callable[[], Objective]) -> None:
    x, real, order = normal(12, 3), normal(12, 3, seed=1), torch.randperm(12)
    torch.testing.assert_close(score_of(make(), x[order], real), score_of(make(), x, real)[order])


@pytest.mark.parametrize("make", EVERY, ids=EVERY_NAME)
def test_scores_do_not_depend_on_where_the_origin_lies(make: Callable[[], Objective]) -> None:
    """In single precision, with a mean 20 times the spread, as the embedding of an untrained ResNet has it."""
    x, real = normal(64, 8).float(), normal(64, 8, seed=1).float()
    torch.testing.assert_close(score_of(make(), x + 20, real + 20), score_of(make(), x, real), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("make", EVERY, ids=EVERY_NAME)
def test_samples_like_the_target_score_lower(make: Callable[[], Objective]) -> None:
    """Half the samples lie where the target is, half elsewhere; one score for all is lower when all are there."""
    real, near, far = normal(40, 2, seed=1), normal(20, 2), normal(20, 2, seed=2) + 4
    score = score_of(make(), torch.cat([near, far]), real)
    if isinstance(make(), BatchMMD):
        assert score_of(make(), torch.cat([near, normal(20, 2, seed=3)]), real)[0] < score[0] - 0.1
    else:
        assert score[:20].mean() < score[20:].mean() - 0.1


# --- the mode-covering score ---


def forward_by_loops(x: Tensor, real: Tensor, variance: float) -> Tensor:
    """Every share by itself: sample k's among the others, real i's among all but each one in turn."""
    m, score = len(x), torch.zeros(len(x)).double()
    for j in range(m):
        for k in set(range(m)) - {j}:
            score[j] += gauss(x[k], x[j], variance) / sum(gauss(x[k], x[n], variance) for n in range(m) if n != k)
        for y in real:
            for out in set(range(m)) - {j}:
                density = sum(gauss(y, x[n], variance) for n in range(m) if n != out)
                score[j] -= gauss(y, x[j], variance) / density / len(real)
    return score


@given(st.integers(2, 7), st.integers(2, 9), st.integers(1, 4), st.floats(0.1, 3), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_forward_kl_matches_loops(m: int, n: int, d: int, bandwidth: float, seed: int) -> None:
    x, real = normal(m, d, seed=seed), normal(n, d, seed=seed + 1) + 0.5
    torch.testing.assert_close(score_of(ForwardKL(bandwidth), x, real), forward_by_loops(x, real, bandwidth * d))


@given(st.integers(2, 40), st.floats(1e-4, 1e4), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_forward_kl_hands_out_as_much_credit_as_debit(m: int, bandwidth: float, seed: int) -> None:
    """In single precision, from kernels that all underflow to kernels that are all one."""
    x, real = normal(m, 2, seed=seed).float(), normal(m, 2, seed=seed + 1).float() * 3
    score = score_of(ForwardKL(bandwidth), x, real)
    assert score.sum().item() == pytest.approx(0, abs=1e-4 * m)
    assert score.abs().max().item() <= (m - 1) * (1 + 1e-5)


def test_forward_kl_reaches_for_what_no_sample_is_near() -> None:
    """All kernels underflow; the nearest sample has the credit of all, except where it is the one left out."""
    x = torch.tensor([[0.0], [0.1], [1.0], [2.0]])
    score = score_of(ForwardKL(0.01), x, torch.full((4, 1), 102.0))
    # It has the credit of four target samples, but for the quarter that goes to the second nearest; no debit, as the
    # others are nearer to each other.
    assert score[3].item() == pytest.approx(-3, abs=1e-4)
    assert score.argmin() == 3 and score.isfinite().all()
    assert score_of(KDE(0.01), x, torch.tensor([[0.0], [0.1], [1.0], [102.0]])).argmin() != 3


@pytest.mark.parametrize("m", [2, 3])
def test_the_forward_kl_gradient_vanishes_at_the_target(m: int) -> None:
    """Every sample's expected score is zero there: the densities of both terms leave one out."""
    p = torch.tensor([0.6, 0.3, 0.1]).double()
    gradient, score = expected_gradient(ForwardKL(0.3), p.log(), p, m)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    torch.testing.assert_close(score, torch.zeros_like(score), atol=1e-12, rtol=0)


def test_in_large_populations_forward_kl_is_the_smoothed_difference_over_the_smoothed_model() -> None:
    """K[(q - p) / q~], in populations of exact proportion; leaving one out changes it by the order of 1 / m."""
    q, p, bandwidth = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double(), 0.7
    kernel = torch.exp(-((PLACES - PLACES.T) ** 2) / (2 * bandwidth))
    expected = kernel @ ((q - p) / (kernel @ q))
    assert expected.abs().min() > 0.01

    def off_by(m: int) -> float:
        x, real = (PLACES.repeat_interleave((m * law).round().long(), 0) for law in (q, p))
        score = score_of(ForwardKL(bandwidth), x, real)
        first = (m * q).round().long().cumsum(0) - 1
        return (score[first] - expected).abs().max().item()

    assert off_by(1000) < 0.01
    assert off_by(1000) == pytest.approx(off_by(100) / 10, rel=0.1)


def test_near_the_target_forward_kl_deviates_as_kde_does() -> None:
    """By (2 / n)^(1/2), with n samples of each set in the same place: here n = 40 on average."""
    deviation = []
    for objective in (ForwardKL(0.01), KDE(0.01)):
        generator = torch.Generator().manual_seed(0)
        draws = [torch.randint(5, (2, 200, 1), generator=generator).double() for _ in range(100)]
        deviation.append(torch.stack([score_of(objective, x, real) for x, real in draws]).std().item())
    assert deviation == pytest.approx([(2 / 40) ** 0.5] * 2, rel=0.15)


# --- MMD ---


def mmd_by_loops(x: Tensor, real: Tensor, variance: float) -> float:
    """The unbiased estimate, term by term."""
    m, n = len(x), len(real)
    within_x = sum(gauss(x[i], x[j], variance) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(gauss(real[i], real[j], variance) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    between = sum(gauss(x[i], real[j], variance) for i in range(m) for j in range(n)) / (m * n)
    return within_x + within_y - 2 * between


@pytest.mark.parametrize(("m", "n", "d", "bandwidth"), [(2, 2, 1, 1.0), (5, 7, 3, 0.2), (30, 4, 2, 1.0)])
def test_batch_mmd_matches_a_double_loop(m: int, n: int, d: int, bandwidth: float) -> None:
    x, real = normal(m, d), normal(n, d, seed=1) + 0.3
    score = score_of(BatchMMD(bandwidth), x, real)
    torch.testing.assert_close(score, torch.full((m,), mmd_by_loops(x, real, bandwidth * d)).double())


def test_batch_mmd_is_zero_in_expectation_for_equal_distributions() -> None:
    draws = [(normal(12, 2, seed=2 * s), normal(12, 2, seed=2 * s + 1)) for s in range(400)]
    equal = torch.stack([score_of(BatchMMD(), x, real)[0] for x, real in draws])
    shifted = torch.stack([score_of(BatchMMD(), x + 1, real)[0] for x, real in draws])

    def z(values: Tensor) -> float:
        return (values.mean() / (values.std() / len(values) ** 0.5)).item()

    assert abs(z(equal)) < 4
    assert z(shifted) > 20


@pytest.mark.parametrize(("m", "n"), [(6, 6), (9, 4)])
def test_witnesses_of_both_sides_add_up_to_the_squared_mmd(m: int, n: int) -> None:
    x, real = normal(m, 2), normal(n, 2, seed=1) + 0.4
    both = score_of(MMDWitness(0.3), x, real).mean() + score_of(MMDWitness(0.3), real, x).mean()
    torch.testing.assert_close(both, score_of(BatchMMD(0.3), x, real)[0])


def test_the_witness_is_bounded() -> None:
    score = score_of(
        MMDWitness(0.01), torch.cat([torch.zeros(50, 2), torch.full((1, 2), 9.0)]), torch.full((51, 2), 9.0)
    )
    assert score[:-1].tolist() == pytest.approx([49 / 50] * 50)
    assert score[-1].item() == pytest.approx(-1)


# --- policy gradients by exact enumeration ---


def expected_gradient(objective: Objective, logits: Tensor, p: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """E[mean_j score_j grad log q(T_j)] over all batches of m generated and m target samples; E[score | category]."""
    q = logits.softmax(0)
    gradient, score = torch.zeros_like(q), torch.zeros_like(q)
    for batch in itertools.product(range(len(q)), repeat=m):
        for real in itertools.product(range(len(q)), repeat=m):
            t = torch.tensor(batch)
            scores = score_of(objective, PLACES[t], PLACES[list(real)])
            weight = q[t].prod() * p[list(real)].prod()
            # grad of log softmax: the one-hot of the category less q
            gradient += weight * (scores[:, None] * (one_hot(t, len(q)) - q)).mean(0)
            score += weight * torch.zeros_like(q).index_add(0, t, scores) / m
    return gradient, score / q


@pytest.mark.parametrize("m", [2, 3])
def test_the_witness_gradient_is_half_that_of_the_population_mmd(m: int) -> None:
    logits, p, bandwidth = torch.tensor([0.3, -0.5, 0.9]).double(), torch.tensor([0.6, 0.3, 0.1]).double(), 0.7
    variable = logits.clone().requires_grad_()
    q = variable.softmax(0)
    kernel = torch.exp(-((PLACES - PLACES.T) ** 2) / (2 * bandwidth))
    ((q - p) @ kernel @ (q - p)).backward()
    gradient, _ = expected_gradient(MMDWitness(bandwidth), logits, p, m)
    torch.testing.assert_close(gradient, variable.grad / 2)


def test_the_kde_gradient_vanishes_at_the_target_when_one_is_left_out() -> None:
    """With equally many samples on both sides both densities have the same bias, and it cancels exactly."""
    p = torch.tensor([0.6, 0.3, 0.1]).double()
    gradient, score = expected_gradient(KDE(0.3), p.log(), p, 3)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    torch.testing.assert_close(score, torch.zeros_like(score), atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", [EnergyDistance(), SlicedWasserstein()], ids=["energy", "sliced Wasserstein"])
@pytest.mark.parametrize(("law", "m"), [([0.6, 0.3, 0.1], 2), ([0.7, 0.3], 3)])
def test_expected_scores_of_distances_are_zero_at_the_target(objective: Objective, law: list[float], m: int) -> None:
    p = torch.tensor(law).double()
    gradient, score = expected_gradient(objective, p.log(), p, m)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    torch.testing.assert_close(score, torch.zeros_like(score), atol=1e-12, rtol=0)


def test_the_energy_gradient_is_half_that_of_the_population_distance() -> None:
    logits, p = torch.tensor([0.3, -0.5, 0.9]).double(), torch.tensor([0.6, 0.3, 0.1]).double()
    variable = logits.clone().requires_grad_()
    q = variable.softmax(0)
    (-(q - p) @ (PLACES - PLACES.T).abs() @ (q - p)).backward()
    gradient, _ = expected_gradient(EnergyDistance(), logits, p, 2)
    torch.testing.assert_close(gradient, variable.grad / 2)


def test_keeping_the_own_kernel_makes_rare_samples_look_frequent() -> None:
    """The documented bias of the paper's setting: at the target, rare samples cost more than frequent ones."""
    p = torch.tensor([0.6, 0.3, 0.1]).double()
    gradient, score = expected_gradient(KDE(0.3, leave_one_out=False), p.log(), p, 3)
    assert score[2] > score[1] > score[0] > 0
    assert gradient.norm() > 0.01


def in_proportion(counts: list[int]) -> Tensor:
    """One-hot features of a population in which category i occurs exactly counts[i] times."""
    return one_hot(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts))


def test_with_features_that_identify_the_class_kde_descends_the_exact_divergence() -> None:
    """Populations in exact proportion, and a kernel too narrow to blur: the score is log q - log p."""
    counts_q, counts_p = [4, 10, 2], [8, 3, 5]
    logits = torch.tensor(counts_q).double().log().requires_grad_()
    q, p = logits.softmax(0), torch.tensor(counts_p) / 16
    (q * (q / p).log()).sum().backward()
    score = score_of(KDE(0.005, leave_one_out=False), in_proportion(counts_q), in_proportion(counts_p))
    gradient = (score[:, None] * (in_proportion(counts_q) - q.detach())).mean(0)
    torch.testing.assert_close(gradient, logits.grad)
    assert gradient.norm() > 0.1


@pytest.mark.parametrize("bandwidth", [0.005, 1.0])
def test_at_the_target_the_exact_gradient_is_zero(bandwidth: float) -> None:
    x = in_proportion([1, 3, 4])
    score = score_of(KDE(bandwidth, leave_one_out=False), x, x)
    gradient = (score[:, None] * (x - x.mean(0))).mean(0)
    torch.testing.assert_close(gradient, torch.zeros(3).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "objective",
    [KDE(0.1), KDE(1.0), ForwardKL(0.1), MMDWitness(0.1), EnergyDistance(), SlicedWasserstein(num_directions=16)],
    ids=["KDE sharp", "KDE as in the paper", "ForwardKL", "MMDWitness", "EnergyDistance", "SlicedWasserstein"],
)
def test_descent_reaches_the_target(objective: Objective) -> None:
    """From scores of samples alone, a categorical comes within sampling noise of the target."""
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.45, 0.3, 0.2, 0.05])
    logits = torch.tensor([-1.0, 0.0, 0.0, 1.0], requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    late = []
    for step in range(300):
        q = logits.softmax(0)
        samples = torch.multinomial(q.detach(), 512, replacement=True, generator=generator)
        real = torch.multinomial(p, 512, replacement=True, generator=generator)
        score = score_of(objective, one_hot(samples, 4).float(), one_hot(real, 4).float())
        advantage = (score - score.mean()) / score.std()
        optimiser.zero_grad()
        (advantage * q.log()[samples]).mean().backward()
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        optimiser.step()
        late += [q.detach()] if step >= 250 else []
    distance = (torch.stack(late).mean(0) - p).abs().sum() / 2
    assert distance < 0.02  # it was 0.47


# --- errors ---


def test_an_unknown_block_suggests_the_nearest() -> None:
    blocks = {"embedding": normal(3, 2), "count": normal(3, 2)}
    for objective in (KDE(blocks=["embeding"]), KDE({"embeding": 1.0})):
        with pytest.raises(
            UserError, match=r"no block 'embeding'. Did you mean 'embedding'\? Available: count, embedding"
        ):
            objective(blocks, blocks, torch.arange(3), blocks)


def test_a_block_without_a_bandwidth_suggests_the_nearest() -> None:
    blocks = {"count": normal(3, 2), "counts": normal(3, 2)}
    with pytest.raises(UserError, match=r"no bandwidth for the block 'counts'. Did you mean 'count'\?"):
        KDE({"count": 1.0}, blocks=["count", "counts"])(blocks, blocks, torch.arange(3), blocks)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, {"a": 1.0, "b": 0.0}])
def test_bandwidths_must_be_positive(bandwidth: float | dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"bandwidth\S* must be greater than 0, not"):
        MMDWitness(bandwidth)


@pytest.mark.parametrize("make", [KDE, ForwardKL, MMDWitness, BatchMMD], ids=lambda cls: cls.__name__)
def test_relative_bandwidths_do_not_depend_on_the_features_scale(make: type[Objective]) -> None:
    x, real = normal(12, 3), normal(12, 3, seed=1) * 2 + 1
    small = score_of(make(0.7, relative_bandwidth=True), x * 1e-2, real * 1e-2)
    assert torch.allclose(small, score_of(make(0.7, relative_bandwidth=True), x, real), atol=1e-6)
    absolute = score_of(make(0.7 * float(real.var(0).mean())), x, real)
    assert torch.allclose(score_of(make(0.7, relative_bandwidth=True), x, real), absolute)
