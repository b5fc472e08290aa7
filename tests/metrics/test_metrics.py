"""Tests of the distribution distances: closed forms, scipy as reference, metric properties, coverage, noise floor."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import binom, wasserstein_distance
from scipy.stats import energy_distance as scipy_energy_distance
from torch import Tensor

from ms2.metrics import bootstrap, vectors
from ms2.metrics.histograms import (
    compare_histograms,
    distribution,
    histogram_noise_floor,
    kl_divergence,
    one_hot_counts,
    total_variation,
    wasserstein,
)
from ms2.metrics.intervals import Interval
from ms2.metrics.vectors import compare_vectors, energy_distance, vector_noise_floor

DISTANCES = ("tv", "kl", "wasserstein")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probabilities(*weights: float) -> Tensor:
    p = torch.tensor(weights, dtype=torch.float64)
    return p / p.sum()


def sample(p: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return one_hot_counts(torch.multinomial(p, n, replacement=True, generator=generator), len(p))


@st.composite
def triples(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Three distributions over the same 1 to 8 bins, some of them empty."""
    k = draw(st.integers(1, 8))
    weights = st.lists(st.integers(0, 20), min_size=k, max_size=k).filter(any)
    p, q, r = (probabilities(*draw(weights)) for _ in range(3))
    return p, q, r


# --- tables and distributions ---


def test_one_hot_counts_places_each_scene_in_its_bin() -> None:
    values = torch.tensor([2, 0, 2])
    assert one_hot_counts(values).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert one_hot_counts(values, bins=5).shape == (3, 5)


@pytest.mark.parametrize(
    ("values", "bins", "message"),
    [([], None, "values is empty"), ([0, 3], 3, "span 0..3, but bins=3 holds 0..2"), ([-1, 1], None, "span -1..1")],
)
def test_one_hot_counts_rejects_what_has_no_bin(values: list[int], bins: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_hot_counts(torch.tensor(values, dtype=torch.long), bins)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_distribution_pools_the_scenes(dtype: torch.dtype) -> None:
    table = torch.tensor([[3, 0, 0], [0, 0, 0], [0, 1, 0]], dtype=dtype)
    assert distribution(table).tolist() == [0.75, 0.25, 0]


def test_distribution_of_nothing_is_zeros_and_batches_over_leading_dimensions() -> None:
    tables = torch.stack([torch.zeros(2, 3), torch.eye(3)[:2]])
    assert distribution(tables).tolist() == [[0, 0, 0], [0.5, 0.5, 0]]


# --- distances ---


def test_distances_of_a_worked_example() -> None:
    p, q = probabilities(1, 1, 0), probabilities(0, 1, 3)
    assert total_variation(p, q).item() == pytest.approx(0.75)
    assert wasserstein(p, q).item() == pytest.approx(0.5 + 0.75)
    assert kl_divergence(probabilities(1, 1), probabilities(1, 3), smoothing=0.0).item() == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    )


def test_kl_is_infinite_without_smoothing_and_finite_with_it() -> None:
    p, q, eps = probabilities(1, 1), probabilities(1, 0), 0.01
    assert kl_divergence(p, q, smoothing=0.0).item() == math.inf
    # Three bins are smoothed: the two given ones and "nothing", which adds ln 1 = 0.
    total = 1 + 3 * eps
    expected = (0.5 + eps) / total * (math.log((0.5 + eps) / (1 + eps)) + math.log((0.5 + eps) / eps))
    assert kl_divergence(p, q, smoothing=eps).item() == pytest.approx(expected)


def test_kl_of_nearly_equal_distributions_is_not_negative_by_rounding() -> None:
    p = torch.rand(1000, 4, generator=rng()) + 0.1
    p /= p.sum(-1, keepdim=True)
    assert (kl_divergence(p, p * (1 + 1e-7 * torch.randn(p.shape, generator=rng(1)))) >= 0).all()


def test_an_empty_distribution_is_far_from_any_other_and_equal_to_itself() -> None:
    empty, q = torch.zeros(3, dtype=torch.float64), probabilities(0, 1, 1)
    assert total_variation(empty, q).item() == total_variation(q, empty).item() == 1
    assert wasserstein(q, empty).item() == pytest.approx(0.5 * 2 + 0.5 * 1)  # to position 3
    assert 5 < kl_divergence(q, empty).item() < math.inf
    for distance in (total_variation, wasserstein, kl_divergence):
        assert distance(empty, empty).item() == 0


@settings(max_examples=50, deadline=None)
@given(triples())
def test_distances_agree_with_scipy(pqr: tuple[Tensor, Tensor, Tensor]) -> None:
    p, q, _ = pqr
    positions = np.arange(len(p))
    w1 = wasserstein_distance(positions, positions, p.numpy(), q.numpy())
    assert wasserstein(p, q).item() == pytest.approx(w1, abs=1e-12)
    exact = rel_entr(p.numpy(), q.numpy()).sum()
    assert kl_divergence(p, q, smoothing=0.0).item() == pytest.approx(exact, abs=1e-12)
    # With smoothing, "nothing" is one more bin that is empty in both.
    smooth = [np.append(x.numpy(), 0) + 1e-4 for x in (p, q)]
    smooth = [x / x.sum() for x in smooth]
    assert kl_divergence(p, q).item() == pytest.approx(rel_entr(*smooth).sum(), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(triples())
def test_metric_properties(pqr: tuple[Tensor, Tensor, Tensor]) -> None:
    p, q, r = pqr
    assert 0 <= total_variation(p, q) <= 1 + 1e-12
    assert 0 <= wasserstein(p, q) <= len(p) - 1 + 1e-12
    assert kl_divergence(p, q) >= 2 * (total_variation(p, q) / (1 + 9e-4)) ** 2 - 1e-12  # Pinsker, of the smoothed
    for distance in (total_variation, wasserstein):
        torch.testing.assert_close(distance(p, q), distance(q, p))
        assert distance(p, r) <= distance(p, q) + distance(q, r) + 1e-12
    for distance in (total_variation, wasserstein, kl_divergence):
        assert distance(p, p) == 0
        assert (distance(p, q) > 1e-9) == (not torch.equal(p, q))


@settings(max_examples=50, deadline=None)
@given(triples(), st.integers(1, 5))
def test_empty_bins_before_or_after_change_neither_tv_nor_w1(pqr: tuple[Tensor, Tensor, Tensor], shift: int) -> None:
    p, q, _ = pqr
    for padding in ((shift, 0), (0, shift)):
        wide = [torch.nn.functional.pad(x, padding) for x in (p, q)]
        torch.testing.assert_close(total_variation(*wide), total_variation(p, q))
        torch.testing.assert_close(wasserstein(*wide), wasserstein(p, q))


def test_wasserstein_of_a_shift_is_its_length() -> None:
    p = probabilities(1, 4, 2)
    shifted = torch.nn.functional.pad(p, (3, 0))
    assert wasserstein(torch.nn.functional.pad(p, (0, 3)), shifted).item() == pytest.approx(3)


@pytest.mark.parametrize("distance", [total_variation, kl_divergence, wasserstein])
def test_distances_broadcast_over_leading_dimensions(distance: Any) -> None:
    ps = torch.rand(4, 2, 5, generator=rng())
    ps, q = ps / ps.sum(-1, keepdim=True), ps[0, 0] / ps[0, 0].sum()
    both = distance(ps, q)
    assert both.shape == (4, 2)
    torch.testing.assert_close(both[3, 1], distance(ps[3, 1], q))
    torch.testing.assert_close(distance(q, ps)[2, 0], distance(q, ps[2, 0]))


# --- intervals ---


def test_interval_prints_short() -> None:
    assert str(Interval(0.0521, 0.0409, 0.0661)) == "0.052 [0.041, 0.066]"


def test_compare_takes_its_value_from_the_full_samples_and_pads_the_narrower() -> None:
    generated, target = torch.tensor([[2, 0], [1, 1]]), torch.tensor([[0, 0, 1], [0, 1, 0]])
    p, q = probabilities(3, 1, 0), probabilities(0, 1, 1)
    result = compare_histograms(generated, target, generator=rng())
    assert tuple(result) == DISTANCES
    assert result["tv"].value == pytest.approx(0.75)
    assert result["wasserstein"].value == pytest.approx(1.25)
    assert result["kl"].value == pytest.approx(kl_divergence(p, q).item(), rel=1e-5)  # generated || target
    swapped = compare_histograms(target, generated, generator=rng())
    assert swapped["tv"].value == pytest.approx(0.75)
    assert swapped["kl"].value == pytest.approx(kl_divergence(q, p).item(), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(triples(), st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 50]), st.integers(0, 2**16))
def test_interval_holds_its_value(
    pqr: tuple[Tensor, Tensor, Tensor], n: int, m: int, resamples: int, seed: int
) -> None:
    g = rng(seed)
    for interval in compare_histograms(
        sample(pqr[0], n, g), sample(pqr[1], m, g), generator=g, resamples=resamples
    ).values():
        assert 0 <= interval.low <= interval.value <= interval.high < math.inf


def test_same_seed_same_interval_and_other_seed_another() -> None:
    generated, target = sample(probabilities(1, 2, 3), 80, rng(1)), sample(probabilities(3, 2, 1), 60, rng(2))
    first, again, other = (compare_histograms(generated, target, generator=rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, target = sample(probabilities(1, 2, 3), 80, rng(1)), sample(probabilities(3, 2, 1), 60, rng(2))
    whole = compare_histograms(generated, target, generator=rng(), resamples=50)
    monkeypatch.setattr(bootstrap, "MAX_DRAWS_PER_CHUNK", 7 * 80)
    assert compare_histograms(generated, target, generator=rng(), resamples=50) == whole


def test_scenes_and_not_objects_are_resampled() -> None:
    """Ten like objects per scene are no more evidence than one."""
    generated, target = sample(probabilities(1, 2, 3), 80, rng(1)), sample(probabilities(3, 2, 1), 60, rng(2))
    one, ten = (compare_histograms(times * generated, times * target, generator=rng()) for times in (1, 10))
    for name in DISTANCES:
        assert one[name].low == pytest.approx(ten[name].low, abs=1e-5)
        assert one[name].high == pytest.approx(ten[name].high, abs=1e-5)


def test_a_higher_level_gives_a_wider_interval() -> None:
    generated, target = sample(probabilities(1, 2, 9), 80, rng(1)), sample(probabilities(9, 2, 1), 60, rng(2))
    narrow, wide = (compare_histograms(generated, target, generator=rng(), level=level) for level in (0.5, 0.99))
    for name in DISTANCES:
        assert wide[name].low < narrow[name].low and narrow[name].high < wide[name].high


FAR = (probabilities(7, 2, 1, 0.5, 0.5), probabilities(2, 3, 4, 1, 1))
UNIFORM = (probabilities(*[1] * 30), probabilities(*[1] * 30))
COIN = (probabilities(50, 50), probabilities(46, 54))  # about one standard error apart
BLOCKS = (probabilities(*[4] * 10, *[1] * 10), probabilities(*[1] * 10, *[4] * 10))  # many bins, all resolved
PARTLY = (probabilities(3, *[1] * 18), probabilities(1, *[1] * 17, 3))  # most bins equal: the plain bootstrap fails


@pytest.mark.parametrize("pair", [FAR, UNIFORM, COIN, PARTLY], ids=["far", "equal", "coin", "partly"])
def test_interval_covers_the_truth(pair: tuple[Tensor, Tensor]) -> None:
    """Of 100 intervals at 95 %, at most 10 may miss: a right one passes 98.9 % of seeds, and this seed is fixed."""
    g, (p, q) = rng(7), pair
    truth = {"tv": total_variation(p, q), "kl": kl_divergence(p, q), "wasserstein": wasserstein(p, q)}
    results = [compare_histograms(sample(p, 300, g), sample(q, 300, g), generator=g, resamples=200) for _ in range(100)]
    for name in DISTANCES:
        covered = sum(r[name].low - 1e-6 <= truth[name].item() <= r[name].high + 1e-6 for r in results)
        assert covered >= 90, f"{name}: {covered} of 100"


@pytest.mark.parametrize("pair", [FAR, BLOCKS], ids=["far", "blocks"])
def test_interval_is_no_wider_than_the_spread_demands(pair: tuple[Tensor, Tensor]) -> None:
    """Far from 0 the width is near 2 x 1.96 standard deviations; rare bins bias KL, so there it may be wider."""
    g, (p, q) = rng(8), pair
    results = [compare_histograms(sample(p, 500, g), sample(q, 500, g), generator=g, resamples=200) for _ in range(60)]
    for name in DISTANCES:
        spread = torch.tensor([r[name].value for r in results]).std().item()
        width = torch.tensor([r[name].high - r[name].low for r in results]).mean().item()
        assert 0.8 < width / (2 * 1.96 * spread) < (2.5 if name == "kl" else 1.6), name


def test_a_statistic_that_never_occurs() -> None:
    never, always = torch.zeros(5, 2), torch.tensor([[1, 1], [2, 2]])
    assert compare_histograms(never, always, generator=rng())["tv"] == Interval(1.0, 1.0, 1.0)
    assert compare_histograms(never, never, generator=rng())["tv"] == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(0, 3), r"shape \[0, 3\]"),
        (torch.zeros(3, 0), r"shape \[3, 0\]"),
        (torch.tensor([[1.0, -1.0]]), "negative or not finite"),
        (torch.tensor([[1.0, math.nan]]), "negative or not finite"),
        (torch.tensor([[1.0, math.inf]]), "negative or not finite"),
    ],
)
def test_unusable_tables_are_named(bad: Tensor, message: str) -> None:
    good = torch.eye(3)
    with pytest.raises(ValueError, match="generated .*" + message):
        compare_histograms(bad, good, generator=rng())
    with pytest.raises(ValueError, match="target .*" + message):
        compare_histograms(good, bad, generator=rng())
    with pytest.raises(ValueError, match="target .*" + message):
        histogram_noise_floor(bad, 10, generator=rng())


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95.0}])
def test_compare_rejects_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="try resamples=500"):
        compare_histograms(torch.eye(3), torch.eye(3), generator=rng(), **options)


# --- noise floor ---


@pytest.mark.parametrize("n", [100, 1000])
def test_noise_floor_matches_the_closed_form(n: int) -> None:
    p, m = probabilities(4, 3, 2, 1), 800
    target = torch.eye(4).repeat_interleave((m * p).round().long(), dim=0)
    floor = histogram_noise_floor(target, n, generator=rng(), resamples=3000)
    # The mean of |x| of a normal x with the variance p (1 - p) (1 / n + 1 / m) of a bin, or F (1 - F) of the CDF.
    shorter = 1 / n + 1 / m
    half_normal = (2 * p * (1 - p) * shorter / math.pi).sqrt().sum().item()
    cdf = p.cumsum(0)[:-1]
    assert floor["tv"] == pytest.approx(half_normal / 2, rel=0.04)
    of_cdf = (2 * cdf * (1 - cdf) * shorter / math.pi).sqrt().sum().item()
    assert floor["wasserstein"] == pytest.approx(of_cdf, rel=0.04)
    # 2 KL / (1 / n + 1 / m) is chi-squared with k - 1 degrees of freedom (Wilks).
    assert floor["kl"] == pytest.approx(3 / 2 * shorter, rel=0.06)


@pytest.mark.parametrize(("n", "m"), [(40, 60), (60, 30)])
def test_noise_floor_is_the_mean_distance_of_two_samples(n: int, m: int) -> None:
    """The exact mean, by the binomial distributions of each bin, and of both CDFs, in two sets of n and m scenes."""
    p = np.array([10, 5, 9, 4, 2]) / 30
    target = torch.eye(5).repeat_interleave(torch.from_numpy(p * m).round().long(), dim=0)
    assert len(target) == m
    floor = histogram_noise_floor(target, n, generator=rng(), resamples=20_000)

    def mean_difference(probability: float) -> float:
        x, y = (np.arange(size + 1) for size in (n, m))
        gap = np.abs(x[:, None] / n - y / m)
        return float(binom.pmf(x, n, probability) @ gap @ binom.pmf(y, m, probability))

    assert floor["tv"] == pytest.approx(sum(map(mean_difference, p)) / 2, rel=0.01)
    assert floor["wasserstein"] == pytest.approx(sum(map(mean_difference, p.cumsum()[:-1])), rel=0.01)


@pytest.mark.parametrize("n", [50, 1000])
def test_noise_floor_is_what_a_perfect_model_shows(n: int) -> None:
    """The true distribution itself, of which the target is a sample, with several objects per scene."""
    g, p, m = rng(5), probabilities(4, 3, 2, 1, 1, 1), 100

    def scenes(num: int) -> Tensor:
        number = torch.randint(1, 6, (num, 1), generator=g)
        drawn = torch.multinomial(p, num * 5, replacement=True, generator=g).view(num, 5)
        return (torch.nn.functional.one_hot(drawn, 6) * (torch.arange(5) < number)[..., None]).sum(1)

    shown, floors = [], []
    for _ in range(300):
        target = scenes(m)
        shown.append(total_variation(distribution(scenes(n)), distribution(target)).item())
        floors.append(histogram_noise_floor(target, n, generator=g, resamples=5)["tv"])
    assert float(np.mean(floors)) == pytest.approx(float(np.mean(shown)), rel=0.05)


def test_noise_floor_is_reproducible_and_rejects_no_scenes() -> None:
    target = torch.eye(3)
    assert histogram_noise_floor(target, 5, generator=rng(1)) == histogram_noise_floor(target, 5, generator=rng(1))
    assert histogram_noise_floor(target, 5, generator=rng(1)) != histogram_noise_floor(target, 5, generator=rng(2))
    for n, resamples in ((0, 10), (5, 0)):
        with pytest.raises(ValueError, match=f"n={n} and resamples={resamples}"):
            histogram_noise_floor(target, n, generator=rng(), resamples=resamples)


# --- energy distance ---


def counts(n: int, rate: float, generator: torch.Generator, d: int = 3) -> Tensor:
    """Structure vectors of n scenes, such as objects of d classes."""
    return torch.poisson(torch.full((n, d), rate), generator=generator)


def energy_by_loops(x: Tensor, y: Tensor) -> float:
    """The formula as it is written, without the pairs of a row with itself."""

    def mean(rows: Tensor, others: Tensor, same: bool) -> float:
        pairs = [(a - b).norm().item() for i, a in enumerate(rows) for j, b in enumerate(others) if not same or i != j]
        return sum(pairs) / len(pairs)

    x, y = x.double(), y.double()
    return math.sqrt(max(0.0, 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)))


def energy_of_laws(points: Tensor, p: Tensor, q: Tensor) -> float:
    gap = p - q
    return math.sqrt(-(gap @ torch.cdist(points, points) @ gap).item())


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**16))
def test_energy_distance_is_the_formula_with_duplicates_or_without(n: int, m: int, d: int, seed: int) -> None:
    g = rng(seed)
    for x, y in (
        (torch.randint(0, 3, (n, d), generator=g), torch.randint(0, 3, (m, d), generator=g)),
        (torch.randn(n, d, generator=g), torch.randn(m, d, generator=g) + 1),
    ):
        # the root of a difference of about 1e-16 that should be 0 is 1e-8
        assert energy_distance(x, y) == pytest.approx(energy_by_loops(x, y), abs=1e-7)
        assert energy_distance(y, x) == pytest.approx(energy_distance(x, y), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(triples())
def test_energy_distance_in_one_dimension_agrees_with_scipy(pqr: tuple[Tensor, Tensor, Tensor]) -> None:
    """scipy takes all pairs, also of a row with itself; n / (n - 1) is the whole difference."""
    weights = [(x * 500).round().long() for x in pqr[:2]]
    x, y = (torch.arange(len(w)).repeat_interleave(w)[:, None] for w in weights)

    def within(rows: Tensor) -> float:
        return torch.cdist(rows.double(), rows.double()).mean().item()

    square = scipy_energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    square -= within(x) / (len(x) - 1) + within(y) / (len(y) - 1)
    assert energy_distance(x, y) == pytest.approx(math.sqrt(max(0.0, square)), abs=1e-6)


def test_energy_distance_of_bernoulli_laws_and_of_points() -> None:
    """2 (p - q)^2 is the square between Bernoulli laws, and twice the distance that between points."""
    x, y = (torch.arange(2).repeat_interleave(torch.tensor(c))[:, None] for c in ([3000, 7000], [6000, 4000]))
    assert energy_distance(x, y) == pytest.approx(math.sqrt(2) * 0.3, abs=1e-3)
    assert energy_distance(torch.zeros(2, 2), torch.tensor([[3.0, 4.0]] * 5)) == pytest.approx(math.sqrt(2 * 5))


def test_energy_distance_has_no_bias_where_laws_are_equal() -> None:
    """The mean of the squares, which may be negative, is 0 within three standard errors."""
    g = rng(3)
    squares = []
    for _ in range(400):
        x, y = counts(20, 1.0, g), counts(30, 1.0, g)
        atoms = vectors._unique_rows(x, y, torch.device("cpu"))
        times_x, times_y = atoms.times
        squares.append(vectors._energy_squared(atoms.points, times_x[None], times_y[None], 20, 30).item())
        assert energy_distance(x, y) == pytest.approx(math.sqrt(max(0.0, squares[-1])))
    assert abs(np.mean(squares)) < 3 * np.std(squares) / 20
    assert min(squares) < 0


def test_energy_distance_sees_what_the_single_numbers_hide() -> None:
    """Two numbers that go together, and the same two that do not."""
    together = torch.tensor([[0, 0], [1, 1]]).repeat(500, 1)
    apart = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]]).repeat(250, 1)
    for column in range(2):
        assert energy_distance(together[:, [column]], apart[:, [column]]) == 0
    points = torch.tensor([[0.0, 0], [1, 1], [0, 1], [1, 0]], dtype=torch.float64)
    exact = energy_of_laws(points, probabilities(1, 1, 0, 0), probabilities(1, 1, 1, 1))
    assert energy_distance(together, apart) == pytest.approx(exact, abs=5e-3)


def test_energy_distance_does_not_change_under_rotation_and_shift_and_scales() -> None:
    g = rng(4)
    x, y = torch.randn(60, 4, generator=g).double(), torch.randn(50, 4, generator=g).double() * 1.5 + 0.5
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=g).double())
    assert energy_distance(x @ turn + 7, y @ turn + 7) == pytest.approx(energy_distance(x, y))
    assert energy_distance(9 * x, 9 * y) == pytest.approx(3 * energy_distance(x, y))


def test_compare_vectors_takes_its_value_from_the_full_samples() -> None:
    g = rng(5)
    x, y = counts(80, 1.0, g), counts(60, 1.6, g)
    interval = compare_vectors(x, y, generator=g)
    assert interval.value == pytest.approx(energy_distance(x, y))
    assert 0 < interval.low < interval.value < interval.high
    narrow = compare_vectors(x, y, generator=rng(6), level=0.5)
    wide = compare_vectors(x, y, generator=rng(6), level=0.99)
    assert wide.low < narrow.low and narrow.high < wide.high
    assert compare_vectors(x, y, generator=rng(6)) == compare_vectors(x, y, generator=rng(6))
    assert compare_vectors(x, y, generator=rng(6)) != compare_vectors(x, y, generator=rng(7))


def test_compare_vectors_resamples_as_a_plain_bootstrap_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squared distances by multiplicities equal those of the rows written out."""
    g = rng(8)
    x, y = torch.randint(0, 2, (7, 2), generator=g), torch.randint(0, 3, (6, 2), generator=g)
    atoms = vectors._unique_rows(x, y, torch.device("cpu"))
    drawn = [vectors._multiplicities(t, n, 20, g) for t, n in zip(atoms.times, (7, 6), strict=True)]
    assert all((rows.sum(1) == n).all() for rows, n in zip(drawn, (7, 6), strict=True))
    monkeypatch.setattr(vectors, "MAX_DISTANCES_PER_CHUNK", 11)  # several parts of the distances
    squares = vectors._energy_squared(atoms.points, *drawn, 7, 6)
    for square, a, b in zip(squares, *drawn, strict=True):
        rows = [atoms.points.repeat_interleave(t.long(), 0) for t in (a, b)]
        assert math.sqrt(max(0.0, square.item())) == pytest.approx(energy_by_loops(*rows), abs=1e-7)


def test_multiplicities_are_those_of_draws_with_replacement() -> None:
    times = torch.tensor([3.0, 0.0, 1.0, 6.0], dtype=torch.float64)
    drawn = vectors._multiplicities(times, 50, 4000, rng())
    p = times / 10
    torch.testing.assert_close(drawn.mean(0), 50 * p, atol=0.25, rtol=0)
    torch.testing.assert_close(drawn.var(0), 50 * p * (1 - p), atol=0.8, rtol=0)


def test_vector_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = counts(80, 1.0, rng(1)), counts(60, 1.2, rng(2))
    whole = compare_vectors(x, y, generator=rng(), resamples=30)
    monkeypatch.setattr(bootstrap, "MAX_DRAWS_PER_CHUNK", 7 * 80)
    monkeypatch.setattr(vectors, "MAX_DISTANCES_PER_CHUNK", 7 * 80)
    parts = compare_vectors(x, y, generator=rng(), resamples=30)
    assert (parts.value, parts.low, parts.high) == pytest.approx((whole.value, whole.low, whole.high), abs=1e-7)


CORNERS = torch.tensor([[0.0, 0], [1, 0], [0, 1], [2, 1], [3, 3]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("q", "sizes"),
    [
        ((4, 3, 2, 1, 1), (200, 200)),
        ((4, 3, 2, 2, 1), (200, 200)),
        ((4, 3, 3, 3, 2), (100, 400)),
        ((1, 1, 2, 3, 4), (200, 200)),
    ],
    ids=["equal", "near", "off", "far"],
)
def test_vector_interval_covers_the_truth(q: tuple[float, ...], sizes: tuple[int, int]) -> None:
    """Of 100 intervals at 95 %, at most 10 may miss: a right one passes 98.9 % of seeds, and this seed is fixed."""
    g, laws = rng(7), (probabilities(4, 3, 2, 1, 1), probabilities(*q))
    truth = energy_of_laws(CORNERS, *laws)
    results = []
    for _ in range(100):
        x, y = (
            CORNERS[torch.multinomial(p, n, replacement=True, generator=g)] for p, n in zip(laws, sizes, strict=True)
        )
        results.append(compare_vectors(x, y, generator=g))
    assert sum(r.low <= truth + 1e-7 <= r.high + 2e-7 for r in results) >= 90
    assert all(0 <= r.low <= r.value <= r.high for r in results)
    if truth > 0.4:  # no wider than the spread demands
        spread = torch.tensor([r.value for r in results]).std().item()
        width = torch.tensor([r.high - r.low for r in results]).mean().item()
        assert 0.8 < width / (2 * 1.96 * spread) < 1.6


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 3), r"shape \[1, 3\], but at least two scenes"),
        (torch.zeros(0, 3), r"shape \[0, 3\], but at least two scenes"),
        (torch.zeros(3, 0), r"shape \[3, 0\], but at least two scenes"),
        (torch.tensor([[1.0] * 3, [math.nan] * 3]), "not finite"),
        (torch.tensor([[1.0] * 3, [math.inf] * 3]), "not finite"),
    ],
)
def test_unusable_vectors_are_named(bad: Tensor, message: str) -> None:
    good = torch.eye(3)
    with pytest.raises(ValueError, match="the first set .*" + message):
        compare_vectors(bad, good, generator=rng())
    with pytest.raises(ValueError, match="the second set .*" + message):
        energy_distance(good, bad)
    with pytest.raises(ValueError, match=message):
        vector_noise_floor(bad, 10, generator=rng())


def test_vectors_of_different_meaning_are_not_compared() -> None:
    with pytest.raises(ValueError, match="the vectors have 3 and 2 numbers"):
        energy_distance(torch.eye(3), torch.eye(2))


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95.0}])
def test_compare_vectors_rejects_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="try resamples="):
        compare_vectors(torch.eye(3), torch.eye(3), generator=rng(), **options)


def test_vector_noise_floor_is_what_a_perfect_model_shows() -> None:
    """Scenes of the model and of the target, both drawn anew from one law."""
    g = rng(9)
    shown = [energy_distance(counts(50, 1.0, g), counts(400, 1.0, g)) for _ in range(400)]
    floor = vector_noise_floor(counts(400, 1.0, g), 50, generator=g, resamples=400)
    assert floor == pytest.approx(float(np.mean(shown)), rel=0.15)


def test_vector_noise_floor_shrinks_as_one_over_root_n() -> None:
    target = counts(5000, 1.0, rng(10))
    few, many = (vector_noise_floor(target, n, generator=rng(11), resamples=4000) for n in (20, 180))
    assert few / many == pytest.approx(3, rel=0.1)


def test_vector_noise_floor_is_reproducible_and_rejects_no_scenes() -> None:
    target = counts(40, 1.0, rng(12))
    assert vector_noise_floor(target, 9, generator=rng(1)) == vector_noise_floor(target, 9, generator=rng(1))
    assert vector_noise_floor(target, 9, generator=rng(1)) != vector_noise_floor(target, 9, generator=rng(2))
    for n, resamples in ((1, 10), (5, 0)):
        with pytest.raises(ValueError, match=f"n={n} and resamples={resamples}"):
            vector_noise_floor(target, n, generator=rng(), resamples=resamples)
