"""Where boxes are: mass by place and height."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ms2.core.errors import UserError
from ms2.features.detection.box_layout import BoxLayout

NAMES = ["truck", "car"]


def layout_of(boxes: list[list[float]], classes: list[int], columns: int = 3, rows: int = 3) -> torch.Tensor:
    layout = BoxLayout(["car"], columns, rows, heights=(10, 40))
    block = layout(torch.tensor([boxes]).float(), torch.tensor([classes]), NAMES, 100)["layout_car"]
    return block.view(columns, rows)


def test_a_box_on_a_point_of_the_grid_counts_there_alone() -> None:
    found = layout_of([[40, 5, 60, 25]], [1])  # 50 of 100 across, 20 high: the middle between 10 and 40 by logarithms
    assert torch.allclose(found, torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]]).float(), atol=1e-6)


def test_boxes_beyond_the_grid_count_at_its_border_and_other_classes_do_not() -> None:
    found = layout_of([[-30, 0, -10, 5], [190, 0, 210, 400], [40, 0, 60, 20], [40, 0, 60, 20]], [1, 1, 0, -1])
    assert found[0, 0] == found[2, 2] == 1 and found.sum() == 2


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(1, 80), st.booleans()), min_size=1, max_size=6),
    st.integers(2, 7),
    st.integers(2, 7),
)
def test_mass_place_and_height_are_kept(objects: list[tuple[float, float, bool]], columns: int, rows: int) -> None:
    """Bilinear division keeps the sum, and the mean place and log height of what is within the grid."""
    boxes = [[x - 5, 3, x + 5, 3 + height] for x, height, _ in objects]
    found = layout_of(boxes, [int(is_car) for *_, is_car in objects], columns, rows).double()
    cars = [(x / 100, math.log(height / 10) / math.log(4)) for x, height, is_car in objects if is_car]
    assert float(found.sum()) == pytest.approx(len(cars), abs=1e-4)
    across = (found.sum(1) * torch.linspace(0, 1, columns, dtype=torch.double)).sum()
    up = (found.sum(0) * torch.linspace(0, 1, rows, dtype=torch.double)).sum()
    assert float(across) == pytest.approx(sum(x for x, _ in cars), abs=1e-3)
    assert float(up) == pytest.approx(sum(min(max(h, 0), 1) for _, h in cars), abs=1e-3)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="name one class at least"):
        BoxLayout([])
    with pytest.raises(UserError, match="ascending"):
        BoxLayout(["car"], heights=(40, 40))
    with pytest.raises(UserError, match=r"layout\.classes names a class 'cat'"):
        BoxLayout(["cat"]).check(NAMES)
