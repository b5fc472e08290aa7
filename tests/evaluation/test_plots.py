"""Pictures that a person reads."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ms2.core.images import encode, image_grid
from ms2.evaluation.plots import caption, summary_figure
from ms2.metrics.results import Estimate, HistogramResult, StatisticResult


def colours(height: int, width: int, number: int = 16) -> dict[str, torch.Tensor]:
    """One colour for the images of each set."""
    plain = {"prior": (1.0, 0.0, 0.0), "learned": (0.0, 1.0, 0.0), "target": (0.0, 0.0, 1.0)}
    return {
        name: torch.tensor(rgb)[:, None, None].expand(3, height, width).expand(number, -1, -1, -1)
        for name, rgb in plain.items()
    }


@pytest.mark.parametrize(("height", "width", "stacked"), [(40, 40, False), (32, 104, True)])
def test_grids_of_wide_images_stand_one_below_the_other(height: int, width: int, stacked: bool) -> None:
    histogram = HistogramResult("cars", "cars", ["0", "1"], {"prior": [0.5, 0.5]})
    picture = summary_figure("run", [histogram], colours(height, width))
    middle = []
    for channel in range(3):
        own = (picture[..., channel] > 250) & (picture.sum(-1) < 300)
        rows, columns = own.nonzero()
        assert len(rows) > 5000
        middle.append((rows.mean(), columns.mean()))
    (top, left), _, (bottom, right) = middle
    assert (bottom - top > 200) == stacked and (right - left > 200) == (not stacked)


def test_a_caption_names_the_main_distance_with_its_unit() -> None:
    rows = {"prior": Estimate(1.2345), "learned": Estimate(0.5), "learned_structure": Estimate(1.0)}
    assert caption(StatisticResult("x of cars", {"w1": rows}, unit="m")) == (
        "Wasserstein distance: prior 1.23 m, learned 0.5 m"
    )
    floor = rows | {"noise_floor": Estimate(0.25)}
    assert caption(StatisticResult("cars", {"tv": floor, "kl": rows})) == (
        "total variation: prior 1.23, learned 0.5, noise floor 0.25"
    )
    assert caption(None) == ""


def test_a_grid_has_four_columns() -> None:
    grid = image_grid(torch.ones(8, 3, 10, 20))
    assert grid.shape == (2 * 11 + 1, 4 * 21 + 1, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (6, 9), (1, 1, 3), (4, 1, 3), (3, 8, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_gives_back_every_pixel(shape, dtype):
    if dtype == np.uint16 and len(shape) == 3:
        pytest.skip("Pillow has no colours of 16 bits")
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    with Image.open(io.BytesIO(encode(pixels, "png"))) as image:
        image.load()  # checks the sums
        assert image.format == "PNG"
        assert image.mode == ("RGB" if len(shape) == 3 else "L" if dtype == np.uint8 else "I;16")
        assert (np.asarray(image) == pixels).all()


def test_a_jpeg_is_nearly_the_image():
    ramp = np.linspace(0, 255, 48 * 48).reshape(48, 48).astype(np.uint8)
    with Image.open(io.BytesIO(encode(ramp, "jpeg"))) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - ramp).max() <= 6
