"""Tests of 2D compositing: exact places, kept ink, the sense of turning, gradients, blending, labels by pixel."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms2.render.compositing.sprites import (
    Sprites,
    blend_maximum,
    mask_boxes,
    place_sprites,
    visible_sprites,
    window_size,
)

SIDES = st.integers(2, 9)
SEEDS = st.integers(0, 1000)
CANVAS = 24


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def draw(sprites: Tensor, x: Tensor, y: Tensor, angle: Tensor | None = None, size: int = CANVAS) -> Tensor:
    """Each sprite on a canvas of its own."""
    canvas = torch.arange(len(sprites))
    return blend_maximum(place_sprites(sprites, x, y, angle, canvas), len(sprites), size, size)


def draw_one(sprite: Tensor, x: float, y: float, angle: float | None = None, size: int = CANVAS) -> Tensor:
    x, y = sprite.new_tensor([x]), sprite.new_tensor([y])
    return draw(sprite[None], x, y, None if angle is None else sprite.new_tensor([angle]), size)[0]


def paste(sprite: Tensor, left: int, top: int, size: int = CANVAS) -> Tensor:
    """The sprite on a black canvas, cut off at the canvas's edges, pixel by pixel."""
    canvas = torch.zeros(size, size)
    for i, row in enumerate(sprite.tolist()):
        for j, value in enumerate(row):
            if 0 <= top + i < size and 0 <= left + j < size:
                canvas[top + i, left + j] = value
    return canvas


# --- place ---


@given(SIDES, st.integers(-12, CANVAS), st.integers(-12, CANVAS), SEEDS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_whole_positions_reproduce_the_sprite_and_the_edge_clips_it(
    side: int, left: int, top: int, seed: int, turning: bool
) -> None:
    sprite = noise(side, side, seed=seed)
    image = draw_one(sprite, left + side / 2, top + side / 2, 0.0 if turning else None)
    torch.testing.assert_close(image, paste(sprite, left, top), atol=2e-5, rtol=0)


@given(SIDES, st.floats(8, 16), st.floats(8, 16), SEEDS)
@settings(max_examples=40, deadline=None)
def test_subpixel_shifts_keep_ink_and_centre_of_mass(side: int, x: float, y: float, seed: int) -> None:
    sprite = noise(side, side, seed=seed)
    image = draw_one(sprite, x, y)
    assert image.sum().item() == pytest.approx(sprite.sum().item(), rel=1e-4)
    for dim, centre in ((0, x), (1, y)):
        inside = ((torch.arange(side) + 0.5 - side / 2) * sprite.sum(dim)).sum() / sprite.sum()
        outside = ((torch.arange(CANVAS) + 0.5) * image.sum(dim)).sum() / image.sum()
        assert outside.item() == pytest.approx(centre + inside.item(), abs=1e-3)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("side", [5, 8])
def test_quarter_turns_are_counter_clockwise(side: int, turns: int) -> None:
    sprite = noise(side, side)
    left = 7
    image = draw_one(sprite, left + side / 2, left + side / 2, turns * math.pi / 2)
    expected = paste(torch.rot90(sprite, turns), left, left)
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)


@given(SIDES, st.floats(-7, 7), st.floats(10, 14), st.floats(10, 14), SEEDS)
@settings(max_examples=30, deadline=None)
def test_turning_back_and_forth_are_mirror_images(side: int, angle: float, x: float, y: float, seed: int) -> None:
    sprite = noise(side, side, seed=seed)
    image = draw_one(sprite, x, y, angle)
    mirrored = draw_one(sprite.flip(1), CANVAS - x, y, -angle)
    torch.testing.assert_close(image, mirrored.flip(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [7, 8, 12, 28])
@pytest.mark.parametrize("angle", [None, math.pi / 4, 1.0])
def test_windows_are_wide_enough(side: int, angle: float | None) -> None:
    """A rim of black pixels makes the window wider, but not the sprite: all its ink was in the window before."""
    n = 41
    x, y = 30 + torch.linspace(0, 1, n), torch.full((n,), 30.5)
    turn = None if angle is None else torch.full((n,), angle)
    sprite = torch.ones(n, side, side)
    image, rimmed = draw(sprite, x, y, turn, 64), draw(F.pad(sprite, (2, 2, 2, 2)), x, y, turn, 64)
    torch.testing.assert_close(image, rimmed, atol=1e-4, rtol=0)


@pytest.mark.parametrize("turning", [False, True])
def test_window_size_is_the_size_of_the_window(turning: bool) -> None:
    angle = torch.zeros(1) if turning else None
    placed = place_sprites(noise(1, 6, 6), torch.tensor([9.3]), torch.tensor([4.0]), angle, torch.tensor([0]))
    assert placed.values.shape == (1, window_size(6, turning), window_size(6, turning))


def test_gradients_of_position_angle_and_intensity_match_finite_differences() -> None:
    offsets = torch.arange(7, dtype=torch.float64) - 3
    blob = torch.exp(-((offsets[:, None] - 0.7) ** 2) / 6 - offsets**2 / 3)
    weight = torch.linspace(0, 3, CANVAS).double() + torch.linspace(1, 3, CANVAS).double()[:, None] ** 2

    def value(x: Tensor, y: Tensor, angle: Tensor, brightness: Tensor) -> Tensor:
        canvas = torch.tensor([0, 1])
        sprites = place_sprites(brightness[:, None, None] * blob, x, y, angle, canvas)
        return (weight * blend_maximum(sprites, 2, CANVAS, CANVAS)).square().sum()

    def double(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    inputs = double(10.21, 13.43), double(11.37, 9.62), double(0.3, -2.1), double(1.0, 0.6)
    assert min(g.abs().min() for g in torch.autograd.grad(value(*inputs), inputs)) > 0.1
    assert torch.autograd.gradcheck(value, inputs)


def test_without_an_angle_position_has_gradients_too() -> None:
    sprite = noise(1, 5, 5).double()

    def value(x: Tensor, y: Tensor) -> Tensor:
        return draw(sprite, x, y).square().sum()

    x, y = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (10.3, 7.8))
    assert torch.autograd.gradcheck(value, (x, y))


# --- blend_maximum ---


def crowd(seed: int, n: int = 9, batch: int = 3, turning: bool = True) -> tuple[Tensor, ...]:
    """Intensities, positions, angles and canvases of n overlapping sprites, some over the edge."""
    x, y, angle = noise(3, n, seed=seed) * CANVAS
    canvas = (noise(n, seed=seed + 1) * batch).long()
    return noise(n, 6, 6, seed=seed), x, y, angle if turning else torch.zeros(n), canvas


def pick(rows: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
    return tuple(row[index] for row in rows)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_lightest_pixel_wins(seed: int) -> None:
    """The same as drawing every sprite alone, and taking the maximum."""
    rows = crowd(seed)
    image = blend_maximum(place_sprites(*rows), 3, CANVAS, CANVAS)
    alone = draw(*rows[:4])
    for canvas in range(3):
        on_it = alone[rows[4] == canvas]
        expected = on_it.amax(0) if len(on_it) else torch.zeros(CANVAS, CANVAS)
        torch.testing.assert_close(image[canvas], expected, atol=0, rtol=0)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_blending_depends_neither_on_order_nor_on_the_batch(seed: int) -> None:
    rows = crowd(seed)
    image = blend_maximum(place_sprites(*rows), 3, CANVAS, CANVAS)
    order = torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(blend_maximum(place_sprites(*pick(rows, order)), 3, CANVAS, CANVAS), image)
    for canvas in range(3):
        *few, on = pick(rows, (rows[4] == canvas).nonzero()[:, 0])
        alone = blend_maximum(place_sprites(*few, torch.zeros_like(on)), 1, CANVAS, CANVAS)
        torch.testing.assert_close(alone[0], image[canvas], atol=0, rtol=0)


def test_canvases_without_sprites_are_black() -> None:
    nothing = place_sprites(torch.zeros(0, 5, 5), *torch.zeros(3, 0), torch.zeros(0, dtype=torch.long))
    assert torch.equal(blend_maximum(nothing, 2, 4, 6), torch.zeros(2, 4, 6))


def test_canvases_may_be_wider_than_high() -> None:
    sprite = noise(4, 4)
    placed = place_sprites(sprite[None], torch.tensor([13.0]), torch.tensor([5.0]), None, torch.tensor([1]))
    image = blend_maximum(placed, 2, 8, 16)
    assert not image[0].any()
    torch.testing.assert_close(image[1, 3:7, 11:15], sprite, atol=1e-5, rtol=0)
    assert image.sum().item() == pytest.approx(sprite.sum().item(), rel=1e-4)


# --- labels by pixel ---


def coarse_sprites(seed: int, n: int = 7, batch: int = 2, window: int = 4) -> Sprites:
    """Sprites with few distinct intensities, so that ties happen, and with windows over every edge."""
    values = (noise(n, window, window, seed=seed) * 4).floor() / 4
    left, top = (noise(2, n, seed=seed + 1) * 11 - 3).floor().long()
    return Sprites(values, left, top, (noise(n, seed=seed + 2) * batch).long())


def lightest_by_pixel(sprites: Sprites, shape: tuple[int, int, int], ink: float, index: list[int]) -> Tensor:
    """Reference: for each pixel the lightest sprite, of equally light ones that with the greatest index."""
    batch, height, width = shape
    out = torch.full(shape, -1)
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                best = (ink, -1)
                for s in range(len(index)):
                    i, j = row - int(sprites.top[s]), column - int(sprites.left[s])
                    inside = 0 <= i < sprites.values.shape[1] and 0 <= j < sprites.values.shape[2]
                    if inside and sprites.canvas[s] == b:
                        best = max(best, (float(sprites.values[s, i, j]), index[s]))
                out[b, row, column] = best[1]
    return out


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_visible_sprites_names_the_sprite_seen_at_each_pixel(seed: int) -> None:
    sprites = coarse_sprites(seed)
    shape = (2, 7, 9)
    index = torch.tensor([3, 0, 5, 1, 4, 2, 6])
    image = blend_maximum(sprites, *shape)
    assert torch.equal(
        visible_sprites(sprites, image, 0.25, index), lightest_by_pixel(sprites, shape, 0.25, index.tolist())
    )


def test_visible_sprites_leaves_faint_pixels_to_the_background() -> None:
    one = torch.tensor([0])
    sprites = Sprites(torch.tensor([[[0.2, 0.25], [0.3, 0.0]]]), one, one, one)
    found = visible_sprites(sprites, blend_maximum(sprites, 1, 2, 3), 0.25, torch.tensor([8]))
    assert found.tolist() == [[[-1, 8, -1], [8, -1, -1]]]


@given(st.integers(0, 2**12 - 1), st.sampled_from([(3, 4), (2, 6), (1, 12), (12, 1)]))
@settings(max_examples=60, deadline=None)
def test_boxes_are_tight_from_edge_to_edge(bits: int, shape: tuple[int, int]) -> None:
    mask = torch.tensor([bool(bits >> i & 1) for i in range(12)]).view(1, *shape)
    pixels = [(i, j) for i in range(shape[0]) for j in range(shape[1]) if mask[0, i, j]]
    rows, columns = [i for i, _ in pixels], [j for _, j in pixels]
    expected = [min(columns), min(rows), max(columns) + 1, max(rows) + 1] if pixels else [0, 0, 0, 0]
    assert mask_boxes(mask)[0].tolist() == expected


def test_boxes_of_several_masks_are_independent() -> None:
    mask = torch.zeros(3, 5, 6, dtype=torch.bool)
    mask[0, 1:3, 2:5] = True
    mask[2, 4, 0] = True
    assert mask_boxes(mask).tolist() == [[2, 1, 5, 3], [0, 0, 0, 0], [0, 4, 1, 5]]
