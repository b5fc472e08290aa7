"""Tests of standardised features: any scale, constant dimensions, running statistics."""

import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ms2.features.standardisation import BatchNorm, Standardisation


def batches(number: int = 40, size: int = 16) -> list[Tensor]:
    """Features of various means and deviations."""
    draw = rng(1)
    mean, deviation = torch.tensor([0.0, 3.0, -20.0]), torch.tensor([1.0, 0.2, 5.0])
    return [mean + deviation * torch.randn(size, 3, generator=draw) for _ in range(number)]


def trained(found: list[Tensor], **arguments: float) -> Standardisation:
    module = Standardisation(found[0].shape[1], **arguments).train()
    for x in found:
        module(x)
    return module.eval()


def test_training_standardises_as_batch_norm_does() -> None:
    [x] = batches(1)
    x.requires_grad_()
    ours, theirs = Standardisation(3).train()(x), nn.BatchNorm1d(3, eps=1e-12, affine=False)(x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = torch.randn(x.shape, generator=rng(2))
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@given(st.floats(-6, 6), st.lists(st.floats(-6, 6), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_the_scale_of_features_does_not_matter(exponent: float, each: list[float]) -> None:
    """From a millionth to a million times, all dimensions alike or each its own."""
    found, scales = batches(10), [10**exponent * torch.ones(3), torch.tensor([10**e for e in each])]
    expected, in_training = trained(found)(found[0]), Standardisation(3).train()(found[0])
    for scale in scales:
        scaled = [x * scale for x in found]
        torch.testing.assert_close(trained(scaled)(scaled[0]), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(Standardisation(3).train()(scaled[0]), in_training, atol=1e-4, rtol=1e-4)


def test_features_of_all_batches_have_mean_0_and_variance_1() -> None:
    found = batches()
    y = trained(found)(torch.cat(found))
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(y.var(0), torch.ones(3), atol=0.03, rtol=0)


def test_moments_can_be_measured_at_once() -> None:
    [x] = batches(1)
    x[:, 1] = 7.0  # constant
    module = Standardisation(3).eval()
    module.measure(x)
    y = module(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(0), torch.tensor([1.0, 0.0, 1.0]))


def test_first_batches_count_alike_and_old_ones_are_forgotten() -> None:
    found = batches(9)
    module = trained(found)
    torch.testing.assert_close(module.mean, torch.cat(found).mean(0))
    torch.testing.assert_close(module.variance, torch.stack([x.var(0) for x in found]).mean(0))
    old = [x + 100 for x in batches(5)]
    recent = trained(old + found * 10, momentum=0.2).mean
    torch.testing.assert_close(recent, module.mean, atol=1.0, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1e-12, 0.1, -1e6])
def test_constant_dimensions_become_zero_with_zero_gradients(value: float) -> None:
    found = [torch.cat([x[:, :1], torch.full((len(x), 1), value)], 1) for x in batches(5)]
    module = trained(found)
    for mode in (False, True):
        x = found[0].clone().requires_grad_()
        y = module.train(mode)(x)
        assert y[:, 1].abs().max() < 1e-6 and y[:, 0].std() > 0.5
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        assert gradient.isfinite().all() and (gradient[:, 1] == 0).all()


def test_rounding_is_no_difference() -> None:
    """Which sums of the same numbers in other orders have."""
    x = 5 * (1 + 1e-6 * torch.randn(64, 2, generator=rng()))
    assert (Standardisation(2).train()(x) == 0).all()
    assert (trained([x])(x) == 0).all()


def test_small_features_in_half_precision_are_standardised() -> None:
    x = (1e-4 * torch.randn(64, 2, generator=rng())).bfloat16()
    y = Standardisation(2).train()(x)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(2), atol=1e-3, rtol=0)


# --- norms of maps ---


def maps(number: int, size: int = 8) -> list[Tensor]:
    """Maps that are empty but for one place in a hundred."""
    draw = rng(3)
    return [
        torch.rand(size, 4, 10, 10, generator=draw) * (torch.rand(size, 1, 10, 10, generator=draw) < 0.01)
        for _ in range(number)
    ]


def test_maps_are_normalised_as_torch_does() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4, momentum=None)  # which averages
    for module in (ours, theirs):
        module.weight.data, module.bias.data = torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = maps(20)
    for x in found:
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(found[0]), theirs.eval()(found[0]), atol=1e-5, rtol=1e-5)


def test_running_moments_of_nearly_empty_maps_are_accurate() -> None:
    """Those with torch's momentum of 0.1, of some ten batches, are several times as far from those of all images."""
    found = maps(300)
    every = torch.cat(found).var((0, 2, 3))
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4)
    errors = []
    for number, x in enumerate(found):
        ours(x), theirs(x)
        if number >= 100:
            errors.append(torch.stack([(v / every - 1).abs() for v in (ours.variance, theirs.running_var)]))
    ours_error, theirs_error = torch.stack(errors).mean((0, 2)).tolist()
    assert ours_error < 0.06 and ours_error < 0.7 * theirs_error
