"""Fragments against brute force: which pixels a rectangle covers, what lies on top, how layers blend."""

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from ms2.render.compositing.layers import (
    TRANSPARENT_ALPHA,
    Fragments,
    blend,
    cos_sin,
    fragment_boxes,
    peel,
    rasterise,
    topmost,
)

SIDE = 20


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangles(n: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Places also beyond the canvas, angles also along the axes: x, y, angle, half sides, canvas."""
    draw = torch.rand(5, n, generator=rng(seed))
    angle = (draw[2] * 2 - 1) * math.pi
    angle[:4] = torch.tensor([0, math.pi / 2, math.pi, -math.pi / 2])
    return draw[0] * 30 - 5, draw[1] * 30 - 5, angle, 0.3 + 6 * draw[3], 0.3 + 4 * draw[4], torch.arange(n) % 3


def cut(x: Tensor, y: Tensor, angle: Tensor, half_length: Tensor, half_width: Tensor, canvas: Tensor) -> Fragments:
    bounds = torch.arange(len(x) + 1)  # each sprite is a piece
    return rasterise(x, y, *cos_sin(angle), half_length, half_width, canvas, SIDE, SIDE, bounds)


def test_fragments_are_the_pixels_whose_centres_lie_within() -> None:
    x, y, angle, half_length, half_width, canvas = rectangles(60)
    fragments = cut(x, y, angle, half_length, half_width, canvas)
    found = torch.zeros(60, 3 * SIDE * SIDE, dtype=torch.bool)
    found[fragments.expand_to_fragments(torch.arange(60)), fragments.pixel] = True
    assert found.sum() == len(fragments.pixel), "a pixel came twice"
    for i in range(60):
        for row in range(SIDE):
            for column in range(SIDE):
                dx, dy = column + 0.5 - float(x[i]), row + 0.5 - float(y[i])
                cos, sin = math.cos(angle[i]), math.sin(angle[i])
                along, across = abs(cos * dx - sin * dy), abs(sin * dx + cos * dy)
                here = bool(found[i, (int(canvas[i]) * SIDE + row) * SIDE + column])
                if along <= half_length[i] and across <= half_width[i]:
                    assert here
                elif along > half_length[i] + 0.1 or across > half_width[i] + 0.1:
                    assert not here


def test_fragments_come_sprite_by_sprite_row_by_row_from_left_to_right() -> None:
    fragments = cut(*rectangles(40))
    sprite = fragments.expand_to_fragments(torch.arange(40))
    key = (sprite * 3 * SIDE * SIDE) + fragments.pixel
    assert (key[1:] > key[:-1]).all()
    assert torch.equal(fragments.pixel % SIDE + 0.5, fragments.across)
    counts = sprite.bincount(minlength=40).cumsum(0).tolist()
    assert [number for *_, number in fragments.bounds] == [0, *counts]
    assert fragments.span(3) == slice(counts[2], counts[3])


def test_an_affine_map_is_taken_at_the_centres_of_pixels() -> None:
    fragments = cut(*rectangles(10))
    x, y, start = torch.randn(3, 10, generator=rng(1))
    sprite = fragments.expand_to_fragments(torch.arange(10))
    row, column = fragments.pixel // SIDE % SIDE, fragments.pixel % SIDE
    wanted = start[sprite] + x[sprite] * (column + 0.5) + y[sprite] * (row + 0.5)
    torch.testing.assert_close(fragments.affine_at_pixels(x, y, start), wanted)


def test_pieces_are_what_their_sprites_alone_would_be() -> None:
    drawn = rectangles(12)
    every = cut(*drawn)
    for first, last in ((0, 7), (7, 12), (3, 3), (0, 12)):
        piece, wanted = every.pieces(first, last), cut(*(values[first:last] for values in drawn))
        for field in fields(Fragments):
            one, other = getattr(piece, field.name), getattr(wanted, field.name)
            assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_angles_are_rounded_alike_wherever_they_stand() -> None:
    angle = (torch.rand(1001, generator=rng()) * 2 - 1) * math.pi
    cos, sin = cos_sin(angle)
    for start in (1, 3, 990):
        assert torch.equal(cos_sin(angle[start:])[0], cos[start:]) and torch.equal(
            cos_sin(angle[start:])[1], sin[start:]
        )
    torch.testing.assert_close(cos, angle.cos())
    torch.testing.assert_close(sin, angle.sin())


def test_the_last_that_counts_is_uppermost() -> None:
    pixel, counts = torch.tensor([2, 0, 2, 2]), torch.tensor([True, True, True, False])
    top, seen = topmost(pixel, counts, 4)
    assert top.tolist() == [1, -1, 2, -1]
    assert seen.tolist() == [False, True, True, False]


@pytest.mark.parametrize("opaque", [0.0, 0.5])
def test_layers_blend_like_painting_one_after_the_other(opaque: float) -> None:
    draw = rng(2)
    pixel, opacity = torch.randint(30, (200,), generator=draw), torch.rand(200, generator=draw)
    opacity[torch.rand(200, generator=draw) < opaque] = 1
    opacity[:20] = 0
    colour = [torch.rand(200, generator=draw) * opacity for _ in range(2)]
    planes = list(torch.rand(2, 30, generator=draw))
    wanted = [plane.clone() for plane in planes]
    for k in range(200):
        for plane, values in zip(wanted, colour, strict=True):
            plane[pixel[k]] = plane[pixel[k]] * (1 - opacity[k]) + values[k]
    layers = peel(pixel, opacity, 30)
    blend(planes, layers, pixel, opacity, colour)
    torch.testing.assert_close(planes, wanted, atol=20 * TRANSPARENT_ALPHA if not opaque else 1e-2, rtol=0)


def test_peeling_leaves_out_what_is_clear_or_buried() -> None:
    pixel = torch.tensor([0, 0, 0, 1, 1, 2])
    opacity = torch.tensor([0.5, 1.0, 0.5, 1.0, 1.0, 0.0])
    assert [layer.tolist() for layer in peel(pixel, opacity, 3)] == [[2, 4], [1]]
    assert peel(pixel[:0], opacity[:0], 3) == []


def test_blending_has_the_gradient_of_the_formula() -> None:
    pixel, start = torch.tensor([0, 1, 0]), torch.tensor([0.2, 0.4], dtype=torch.float64)
    opacity = torch.tensor([0.3, 0.6, 0.5], dtype=torch.float64, requires_grad=True)
    colour = torch.tensor([0.1, 0.3, 0.4], dtype=torch.float64, requires_grad=True)

    def blended(opacity: Tensor, colour: Tensor) -> Tensor:
        plane = start * 1
        blend([plane], peel(pixel, opacity, 2), pixel, opacity, [colour])
        return plane

    assert torch.autograd.gradcheck(blended, (opacity, colour))
    assert blended(opacity, colour)[0].item() == pytest.approx((0.2 * 0.7 + 0.1) * 0.5 + 0.4)


def test_boxes_are_tight_around_chosen_fragments() -> None:
    fragments = cut(*rectangles(30))
    chosen = torch.rand(len(fragments.pixel), generator=rng(3)) < 0.3
    box, number = fragment_boxes(fragments, chosen, 30)
    sprite = fragments.expand_to_fragments(torch.arange(30))
    for i in range(30):
        pixel = fragments.pixel[chosen & (sprite == i)]
        row, column = pixel // SIDE % SIDE, pixel % SIDE
        wanted = [column.min(), row.min(), column.max() + 1, row.max() + 1] if len(pixel) else [0, 0, 0, 0]
        assert box[i].tolist() == wanted
        assert number[i] == len(pixel)


def test_nothing_at_all_is_drawn_without_sprites() -> None:
    fragments = cut(*(values[:0] for values in rectangles(5)))
    assert len(fragments.pixel) == 0
    box, number = fragment_boxes(fragments, torch.zeros(0, dtype=torch.bool), 0)
    assert box.shape == (0, 4) and number.shape == (0,)
