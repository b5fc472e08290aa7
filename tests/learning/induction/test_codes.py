"""Code lengths: the adaptive code symbol by symbol, Kraft's inequality, and the families of lengths."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ms2.learning.induction.codes import choice_code, fit_lengths, integer_code


@given(st.lists(st.integers(0, 3), max_size=12))
def test_choices_take_what_the_adaptive_code_takes_one_after_the_other(values: list[int]) -> None:
    seen, total = [0.5] * 4, 0.0
    for value in values:
        total -= math.log(seen[value] / sum(seen))
        seen[value] += 1
    counts = torch.tensor(values, dtype=torch.long).bincount(minlength=4)
    assert float(choice_code(counts)) == pytest.approx(total)


def test_codes_of_numbers_keep_krafts_inequality_and_grow() -> None:
    codes = [integer_code(n) for n in range(20_000)]
    assert sum(math.exp(-code) for code in codes) <= 1
    assert codes == sorted(codes)


@pytest.mark.parametrize(
    ("weights", "family"),
    [([0.0, 0.0, 1.0], "constant"), ([1.0] * 8, "free"), ([0.6 * 0.4**n for n in range(40)], "geometric")],
)
def test_the_family_of_lengths_is_found(weights: list[float], family: str) -> None:
    drawn = torch.multinomial(torch.tensor(weights), 3000, replacement=True, generator=torch.Generator().manual_seed(0))
    table = fit_lengths(drawn)
    assert table.family == family
    assert sum(table.weights) == pytest.approx(1)
    expected = torch.tensor(weights, dtype=torch.double)
    expected /= expected.sum()
    found = torch.tensor(table.weights)[: len(expected)]
    assert float((found - expected[: len(found)]).abs().max()) < 0.03
    assert torch.equal(table.log_prob(torch.tensor([10**6])), torch.tensor([-torch.inf], dtype=torch.double))


def test_a_free_table_leaves_room_beyond_the_longest_list() -> None:
    table = fit_lengths(torch.tensor([0, 5] * 10))
    assert table.family == "free"
    assert 0 < table.weights[6] < table.weights[3] < table.weights[5]


def test_no_lists_give_a_table() -> None:
    table = fit_lengths(torch.tensor([], dtype=torch.long))
    assert table.num_lists == 0 and sum(table.weights) == pytest.approx(1)
