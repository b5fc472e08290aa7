"""Generators are a function of their keys, in every process."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ms2.core.seeding import generator

KEYS = st.lists(st.integers() | st.text(alphabet="ab1'\"\\\x1f", max_size=4), max_size=4)


def numbers(*keys: int | str) -> list[int]:
    return torch.randint(2**62, (4,), generator=generator(*keys)).tolist()


@given(KEYS)
def test_the_same_keys_give_the_same_numbers(keys: list[int | str]):
    assert numbers(*keys) == numbers(*keys)


@given(KEYS, KEYS)
def test_different_keys_give_different_numbers(some: list[int | str], others: list[int | str]):
    assert (numbers(*some) == numbers(*others)) == (some == others)


@pytest.mark.parametrize(
    ("some", "others"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        (("a\x1f", "b"), ("a", "\x1fb")),
        (("a'\x1f'b",), ("a", "b")),  # keys that spell the separator
        ((1,), ("1",)),
        ((1, 2), (12,)),
        ((1,), (-1,)),
        ((0,), ()),
        (("",), ()),
    ],
)
def test_keys_do_not_run_together(some: tuple[int | str, ...], others: tuple[int | str, ...]):
    assert numbers(*some) != numbers(*others)


def test_neighbouring_seeds_are_uncorrelated():
    draws = torch.stack([torch.randn(2000, generator=generator(seed, "training")) for seed in range(20)])
    off_diagonal = torch.corrcoef(draws)[~torch.eye(20, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / 2000**0.5


def test_another_process_draws_the_same_numbers():
    """Whatever seed Python's own hash() has there."""
    program = (
        "import torch; from ms2.core.seeding import generator;"
        "print(torch.randint(2**62, (4,), generator=generator(3, 'training', 'é', -1)).tolist())"
    )
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = os.environ | {"PYTHONHASHSEED": other_seed, "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(numbers(3, "training", "é", -1))


def test_the_generator_is_left_at_its_start_and_on_the_device_asked_for():
    made = generator("a", device="cpu")
    assert made.device == torch.device("cpu")
    assert made.get_state().equal(torch.Generator().manual_seed(made.initial_seed()).get_state())


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    numbers("a")
    assert torch.get_rng_state().equal(before)
