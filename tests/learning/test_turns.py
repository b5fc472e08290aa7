"""Which steps train parameters, against counting them one by one."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms2.core.errors import UserError
from ms2.learning.turns import Schedule, Turns

SCHEDULES: list[Schedule] = ["last", "first", "alternating"]


@settings(max_examples=100)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 150), st.sampled_from(SCHEDULES))
def test_which_steps_train_parameters(some: int, of: int, steps: int, schedule: Schedule) -> None:
    fraction = Fraction(min(some, of), of)
    turns = Turns(schedule, float(fraction))
    are = [turns.is_parameter_step(step, steps) for step in range(steps)]
    number = math.floor(fraction * steps)
    assert sum(are) == number
    before = [sum(are[:step]) for step in range(steps + 1)]
    assert [turns.parameter_steps_before(step, steps) for step in range(steps + 1)] == before
    assert [step for step in range(steps) if are[step] and turns.is_last_parameter_step(step, steps)] == [
        step for step in range(steps) if are[step] and not any(are[step + 1 :])
    ]
    if schedule == "last":
        assert are == [False] * (steps - number) + [True] * number
    elif schedule == "first":
        assert are == [True] * number + [False] * (steps - number)
    else:
        assert all(-1 < sum(are[:step]) - fraction * step <= 0 for step in range(steps + 1))
    if fraction == 1:
        assert all(are)
    for step in range(steps):
        progress = turns.progress(step, steps)
        assert progress.parameters == pytest.approx(before[step] / max(1, number))
        assert progress.structure == pytest.approx((step - before[step]) / max(1, steps - number))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_without_an_end_makes_no_progress(schedule: Schedule) -> None:
    turns = Turns(schedule, parameter_fraction=0)
    assert not any(turns.is_parameter_step(step, -1) for step in range(5))
    assert turns.progress(7, -1) == (0, 0)


@pytest.mark.parametrize("fraction", [-0.1, 1.01])
def test_a_fraction_lies_between_0_and_1(fraction: float) -> None:
    with pytest.raises(UserError, match=r"parameter_fraction must be (at least 0|at most 1), not"):
        Turns(parameter_fraction=fraction)


def test_an_average_is_of_some_steps() -> None:
    with pytest.raises(UserError, match="ema_steps must be at least 1, not 0"):
        Turns(ema_steps=0)
