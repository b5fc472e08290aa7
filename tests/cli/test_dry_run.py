"""Checks before the first stage."""

import pytest

from ms2.cli.dry_run import check_batch_size
from ms2.core.errors import UserError


@pytest.mark.parametrize(
    ("size", "processes", "nearest"), [(3, 2, "2 or 4"), (1, 2, "2"), (7, 8, "8"), (100, 3, "99 or 102")]
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(
    size: int, processes: int, nearest: str
) -> None:
    said = rf"data\.batch_size is {size}, which {processes} processes can't share evenly: take {nearest}$"
    with pytest.raises(UserError, match=said):
        check_batch_size("data", size, processes)


@pytest.mark.parametrize(("size", "processes"), [(1, 1), (4, 2), (8, 8), (99, 3)])
def test_a_batch_that_divides_is_accepted(size: int, processes: int) -> None:
    check_batch_size("data", size, processes)
