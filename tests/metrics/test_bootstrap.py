"""Drawing with replacement: the draws of plain loops, whatever the size of the chunks."""

import pytest
import torch
from torch import Tensor

from ms2.core.errors import UserError
from ms2.metrics import bootstrap
from ms2.metrics.bootstrap import basic_interval, check_options, percentile_interval, resampled_counts


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loops(num_items: int, num_drawn: int, resamples: int, accept: Tensor | None = None) -> Tensor:
    """One draw per set; sets without an accepted item are drawn again."""
    draw, rows = rng(), []
    while len(rows) < resamples:
        drawn = torch.randint(num_items, (num_drawn,), generator=draw)
        if accept is None or bool(accept[drawn].any()):
            rows.append(torch.bincount(drawn, minlength=num_items).double())
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [1, 30, 2_000_000])
@pytest.mark.parametrize("num_drawn", [3, 12])
def test_draws_are_those_of_a_loop(chunk: int, num_drawn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_DRAWS_PER_CHUNK", chunk)
    found = list(resampled_counts(7, num_drawn, 20, rng()))
    assert len(found) == {1: 20, 30: 20 // (30 // max(7, num_drawn)), 2_000_000: 1}[chunk]
    assert torch.equal(torch.cat(found), by_loops(7, num_drawn, 20))


@pytest.mark.parametrize("chunk", [1, 2_000_000])
def test_sets_without_an_accepted_item_are_drawn_again(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_DRAWS_PER_CHUNK", chunk)
    accept = torch.tensor([False, False, True, False, False])
    found = torch.cat(list(resampled_counts(5, 2, 50, rng(), accept=accept)))
    assert torch.equal(found, by_loops(5, 2, 50, accept)) and bool((found[:, 2] > 0).all())


def test_groups_are_counted_instead_of_items() -> None:
    group = torch.tensor([2, 0, 0, 2])
    found = torch.cat(list(resampled_counts(4, 6, 30, rng(), group=group, num_groups=3)))
    items = by_loops(4, 6, 30)
    assert torch.equal(found, torch.stack([items[:, 1] + items[:, 2], 0 * items[:, 0], items[:, 0] + items[:, 3]], 1))


def test_the_upper_end_of_the_basic_bootstrap_takes_the_larger_tail() -> None:
    error = torch.cat([-3 * torch.ones(50), torch.ones(50)]).double()
    low, high = basic_interval(torch.tensor(10.0).double(), error, 0.95)
    assert (float(low), float(high)) == (9, 13)
    low, high = basic_interval(torch.tensor(10.0).double(), -error, 0.95)
    assert (float(low), float(high)) == (7, 13)


def test_percentiles_leave_out_what_is_unknown() -> None:
    values = torch.tensor([2.0, 1.0, torch.nan, 3.0, 1.5])
    found = percentile_interval(values, 0.5)
    assert (found.value, found.low, found.high) == (2.0, 1.25, 2.25)


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.9), (5, 0.0), (5, 1.0)])
def test_impossible_options_are_named(resamples: int, level: float) -> None:
    with pytest.raises(UserError, match=f"resamples={resamples} and level={level}"):
        check_options(resamples, level)
