"""Energy and sliced Wasserstein distance: derivatives of the distances, SciPy's distances, enumeration, invariances."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import scipy.stats
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms2.objectives.base import Objective
from ms2.objectives.energy import EnergyDistance
from ms2.objectives.sliced_wasserstein import SlicedWasserstein, _directions

BOTH: list[Callable[[], Objective]] = [EnergyDistance, lambda: SlicedWasserstein(num_directions=9)]
every_distance = pytest.mark.parametrize("make", BOTH, ids=["EnergyDistance", "SlicedWasserstein"])
COUNTS_Q, COUNTS_P = torch.tensor([5, 1, 4, 2, 1]), torch.tensor([1, 3, 2, 2, 3])
"""How often a population and the target have each of five categories: their CDFs differ between all of these."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.double)


def scores(objective: Objective, x: Tensor, population: Tensor, real: Tensor) -> Tensor:
    """Scores of samples that come on top of a population, which is compared without them."""
    own = torch.arange(len(x)) * 0
    return torch.cat(
        [
            objective({"f": x[j : j + 1]}, {"f": torch.cat([x[j : j + 1], population])}, own[:1], {"f": real})[0]
            for j in range(len(x))
        ]
    )


def distance(objective: Objective, places: Tensor, q: Tensor, p: Tensor) -> Tensor:
    """The distance of two weighted sets of places, of which `EnergyDistance` scores half the square."""
    if isinstance(objective, EnergyDistance):
        return -(q - p) @ torch.cdist(places, places) @ (q - p) / 2
    lines = _directions(9 if places.shape[1] > 1 else 1, places.shape[1], 0, places.device, places.dtype)
    found = []
    for line in lines:
        values, order = (places @ line).sort()
        found.append(((q - p)[order].cumsum(0)[:-1].abs() * values.diff()).sum())
    return torch.stack(found).mean()


@every_distance
@pytest.mark.parametrize("d", [1, 3])
def test_scores_are_the_derivative_of_the_distance_by_the_weights(make: Callable[[], Objective], d: int) -> None:
    places = normal(5, d)
    q = (COUNTS_Q / COUNTS_Q.sum()).double().requires_grad_()
    p = (COUNTS_P / COUNTS_P.sum()).double()
    value = distance(make(), places, q, p)
    (derivative,) = torch.autograd.grad(value, q)
    found = scores(make(), places, places.repeat_interleave(COUNTS_Q, 0), places.repeat_interleave(COUNTS_P, 0))
    torch.testing.assert_close(found - found.mean(), derivative - derivative.mean())
    if isinstance(make(), SlicedWasserstein):
        torch.testing.assert_close(q.detach() @ found, value.detach() / 2)


@every_distance
def test_mean_scores_of_both_sides_differ_by_the_distance_of_scipy(make: Callable[[], Objective]) -> None:
    x, real = normal(20, 1), normal(17, 1, seed=1) * 2 + 0.3
    between = scores(make(), x, x, real).mean() - scores(make(), real, x, real).mean()
    sides = x[:, 0].numpy(), real[:, 0].numpy()
    if isinstance(make(), EnergyDistance):
        assert between.item() == pytest.approx(scipy.stats.energy_distance(*sides) ** 2)
    else:
        assert between.item() == pytest.approx(scipy.stats.wasserstein_distance(*sides))


@every_distance
def test_scores_are_zero_where_both_sets_are_equal(make: Callable[[], Objective]) -> None:
    places = normal(12, 3)
    found = scores(make(), normal(7, 3, seed=1), places, places[torch.randperm(12, generator=rng())])
    torch.testing.assert_close(found, torch.zeros(7).double(), atol=1e-12, rtol=0)


@every_distance
def test_scores_have_the_unit_of_the_features(make: Callable[[], Objective]) -> None:
    x, real = {"f": normal(9, 3)}, {"f": normal(9, 3, seed=1)}
    larger = [{"f": 1000 * side["f"]} for side in (x, real)]
    score, scaled = (make()(x, x, torch.arange(9), real)[0] for x, real in ((x, real), larger))
    torch.testing.assert_close(scaled, 1000 * score)


def test_scores_do_not_depend_on_rotations() -> None:
    """But for the chance of the directions."""
    x, real, turn = normal(8, 3), normal(8, 3, seed=1) + 0.5, torch.linalg.qr(normal(3, 3, seed=2)).Q
    for objective, error in ((EnergyDistance(), 1e-12), (SlicedWasserstein(num_directions=20_000), 0.05)):
        one, other = (
            objective({"f": a}, {"f": a}, torch.arange(8), {"f": b})[0] for a, b in ((x, real), (x @ turn, real @ turn))
        )
        assert (other - one).norm() <= error * one.norm()


def potential_by_hand(x: float, others: list[float], targets: list[float]) -> float:
    """The integral of sign(F - G) (1[t >= x] - (F + G) / 2), from one value to the next."""
    total = 0.0
    for low, high in pairwise(sorted({x, *others, *targets})):
        f, g = (sum(value <= low for value in side) / len(side) for side in (others, targets))
        sign = (f > g + 1e-9) - (f < g - 1e-9)
        total += sign * ((x <= low) - (f + g) / 2) * (high - low)
    return total


@given(st.integers(2, 7), st.integers(2, 9), st.integers(0, 100), st.booleans())
@settings(max_examples=15, deadline=None)
def test_sliced_scores_match_loops_at_and_beside_their_samples(m: int, n: int, seed: int, ties: bool) -> None:
    x, real, moved = normal(m, 1, seed=seed), normal(n, 1, seed=seed + 1) + 0.5, normal(m, 1, seed=seed + 2)
    if ties:
        x, real, moved = x.round(), real.round(), moved.round()
    for features in (x, x + moved):
        found = SlicedWasserstein()({"f": features}, {"f": x}, torch.arange(m), {"f": real})[0]
        places, kept = x[:, 0].tolist(), real[: m - 1, 0].tolist()
        expected = [
            potential_by_hand(value, places[:j] + places[j + 1 :], kept)
            for j, value in enumerate(features[:, 0].tolist())
        ]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double), atol=1e-9, rtol=0)


@every_distance
@pytest.mark.parametrize("moved", [0.0, 0.4])
def test_gradients_are_the_slopes_of_the_scores(make: Callable[[], Objective], moved: float) -> None:
    """At the place of a sample, and beside it, where the others are constants."""
    population, real, own = normal(8, 3), normal(8, 3, seed=1), torch.tensor([5, 0, 3])

    def score(features: Tensor) -> Tensor:
        return make()({"f": features}, {"f": population}, own, {"f": real})[0]

    features = (population[own] + moved * normal(3, 3, seed=2)).requires_grad_()
    assert torch.autograd.gradcheck(score, features)


def test_samples_that_coincide_are_not_drawn_to_one_side() -> None:
    """The slope between the one-sided ones: here the target lies to both sides of all samples."""
    x, real = torch.zeros(6, 1).requires_grad_(), torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [0.0], [0.0]])
    for objective in (EnergyDistance(), SlicedWasserstein()):
        (slope,) = torch.autograd.grad(objective({"f": x}, {"f": x}, torch.arange(6), {"f": real})[0].sum(), x)
        assert (slope == 0).all()


@every_distance
def test_descent_through_features_reaches_the_target(make: Callable[[], Objective]) -> None:
    """Mean and deviation of a normal distribution in two dimensions, from those of another."""
    mean, deviation = torch.tensor([2.0, -1.0]).requires_grad_(), torch.tensor([0.3, 2.0]).requires_grad_()
    optimiser, draw = torch.optim.Adam([mean, deviation], 0.1), rng()
    for step in range(100):
        noise, real = torch.randn(2, 64, 2, generator=draw)
        x = {"f": mean + deviation * noise}
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 100)
        optimiser.zero_grad()
        make()(x, x, torch.arange(64), {"f": real})[0].mean().backward()
        optimiser.step()
    assert mean.detach().abs().max() < 0.2
    assert (deviation.detach() - 1).abs().max() < 0.25


def test_directions_depend_on_the_seed() -> None:
    x, real = {"f": normal(9, 3)}, {"f": normal(9, 3, seed=1)}
    one, again, other = (SlicedWasserstein(seed=seed)(x, x, torch.arange(9), real)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.allclose(one, other)
