"""Motion in driving scenes: lanes, distances, and what the camera sees of it."""

import math

import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from street_geometry import beside, depths
from test_driving import NUMBER, drawn, street

from ms2.core.errors import UserError
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.declaration import FIRST_OBJECT_CLASS_INDEX, OBJECT_CLASSES, OBJECTS
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.motion import CAMERA_SPEED, MIN_VIEW, Movers, check_room, simulate
from ms2.worlds.driving3d.priors import SimpleStreets, Urban
from ms2.worlds.driving3d.renderer import StreetView

FRAMES, FPS = 10, 4.0
LAYOUT = StreetLayout(off_street_fraction=0.2)


@pytest.fixture(scope="module")
def scenes() -> SceneBatch:
    return drawn(Urban(), 10, layout=LAYOUT)


@pytest.fixture(scope="module")
def frames(scenes: SceneBatch) -> SceneBatch:
    return LAYOUT.animate(scenes, FRAMES, FPS, rng(1))


def over_time(frames: SceneBatch, name: str) -> torch.Tensor:
    return frames.attributes[name].view(-1, FRAMES, frames.classes.shape[1])


def is_a(scenes: SceneBatch, *names: str) -> torch.Tensor:
    return torch.isin(scenes.classes, torch.tensor([NUMBER[name] for name in names]))


def placed(scenes: SceneBatch, **attributes: float) -> SceneBatch:
    """Scenes of one object on a straight street, with attributes."""
    objects = {name: torch.full(scenes.classes.shape, value) for name, value in attributes.items()}
    return scenes.with_attributes(**objects).with_environment(curve=torch.zeros(len(scenes)))


def test_the_first_frame_is_the_scene(scenes: SceneBatch, frames: SceneBatch) -> None:
    first = frames[::FRAMES]
    assert all(torch.equal(getattr(first, name), getattr(scenes, name)) for name in ("classes", "parents"))
    may_move = is_a(scenes, "car", "truck", "cyclist", "pedestrian")  # and then head along the street
    for name, values in scenes.attributes.items():
        same = torch.isclose(first.attributes[name], values, atol=1e-5)
        assert bool((same | (may_move if name == "yaw" else False)).all()), name
    assert torch.allclose(first.environment["camera_yaw"], scenes.environment["camera_yaw"])
    assert not first.environment["camera_y"].any() and not first.environment["camera_x"].any()


def test_nothing_touches(scenes: SceneBatch, frames: SceneBatch) -> None:
    """By separating axes of the rectangles on the ground."""
    assert float(depths(scenes).max()) < 0 and float(depths(frames).max()) < 0


def test_the_camera_touches_nothing(frames: SceneBatch) -> None:
    """A car in the place of the camera's, of its width: the model of cars that is nearest to it."""
    of = frames.environment
    car = {"x": of["camera_x"], "y": of["camera_y"], "yaw": of["camera_yaw"], "model": 0 * of["curve"]}
    car |= dict.fromkeys(("width", "length", "height", "colour"), 0.9 + 0 * of["curve"])
    joined = SceneBatch(
        torch.cat([frames.classes, torch.full((len(frames), 1), NUMBER["car"])], 1),
        torch.cat([frames.parents, torch.zeros(len(frames), 1, dtype=torch.long)], 1),
        {name: torch.cat([values, car[name][:, None]], 1) for name, values in frames.attributes.items()},
        of,
    )
    assert float(depths(joined)[:, -1].max()) < 0
    assert float(of["camera_y"].max()) > 10


def test_what_moves_keeps_its_lane_and_heads_along_it(frames: SceneBatch) -> None:
    aside = beside(frames).view(-1, FRAMES, frames.classes.shape[1])
    assert torch.allclose(aside, aside[:, :1].expand_as(aside), atol=1e-4)
    y, yaw = over_time(frames, "y"), over_time(frames, "yaw")
    curve = frames.environment["curve"].view(-1, FRAMES, 1)
    moved = y.diff(dim=1)
    heading = yaw + torch.atan(curve * y)
    assert torch.allclose(heading[:, 1:].cos()[moved != 0], moved[moved != 0].sign(), atol=1e-5)
    # traffic keeps to the right
    vehicles = is_a(frames, "car", "truck").view(y.shape)[:, 1:] & (moved != 0)
    assert torch.equal(moved[vehicles] > 0, aside[:, 1:][vehicles] > 0) and int(vehicles.sum()) > 60


def test_only_people_and_traffic_move_at_plausible_speeds(frames: SceneBatch) -> None:
    speed = over_time(frames, "y").diff(dim=1).abs() * FPS
    limit = torch.tensor([0.0] * FIRST_OBJECT_CLASS_INDEX + [(c.speed or (0, 0))[1] for c in OBJECT_CLASSES.values()])
    most = limit[frames.classes].view(-1, FRAMES, frames.classes.shape[1])[:, 1:]
    assert bool((speed <= most + 1e-3).all())
    half_road = frames.environment["road_width"][:, None] / 2
    on_road = (beside(frames).abs() < half_road).view(-1, FRAMES, frames.classes.shape[1])[:, 0]
    car = is_a(frames, "car", "truck").view(on_road.shape[0], FRAMES, -1)[:, 0]
    moves = (speed > 0).any(1)
    assert not moves[car & ~on_road].any() and moves[car & on_road].float().mean() > 0.9
    camera = frames.environment["camera_y"].view(-1, FRAMES).diff(dim=1) * FPS
    assert float(camera.min()) >= 0 and float(camera.max()) <= CAMERA_SPEED.high + 1e-3


def test_more_frames_begin_with_the_same_ones_in_any_batch(scenes: SceneBatch) -> None:
    few, many = (LAYOUT.animate(scenes[:1], number, FPS, rng(3)) for number in (5, 12))
    assert all(torch.equal(values, many.attributes[name][:5]) for name, values in few.attributes.items())
    assert all(torch.equal(values, many.environment[name][:5]) for name, values in few.environment.items())


def test_who_is_faster_queues() -> None:
    """A car behind a pedestrian in its way comes no nearer than the gap that is kept, and drives as slowly."""
    one = torch.ones(1, 2)
    movers = Movers(torch.tensor([[5.0, 20.0]]), 0 * one, one, one, one, torch.tensor([[12.0, 1.0]]))
    y = simulate(movers, torch.zeros(1), 100, 10.0)[:, 0]
    assert torch.allclose(y[:, 1], 20 + torch.arange(100) * 0.1, atol=1e-3)
    assert float((y[:, 1] - y[:, 0]).min()) > 2
    assert float(y[-1, 0] - y[-2, 0]) == pytest.approx(0.1, abs=0.02)


def test_a_free_mover_keeps_its_speed() -> None:
    one = torch.ones(1, 1)
    y = simulate(Movers(0 * one, 0 * one, one, one, -one, 7 * one), torch.zeros(1), 11, 5.0)
    assert torch.allclose(y[:, 0, 0], -7 * torch.arange(11) / 5, atol=1e-4)


@given(st.integers(0, 10_000), st.integers(2, 7), st.sampled_from([1.0, 4.0, 10.0, 30.0]))
@settings(max_examples=8, deadline=None)
def test_no_traffic_collides(seed: int, number: int, fps: float) -> None:
    """Movers that do not overlap at first never do, whatever their directions, sizes and speeds."""
    draw = torch.rand(5, 8, number, generator=rng(seed))
    half = 0.3 + 2 * draw[0]
    y = (2 * half + 3 * draw[1]).cumsum(1)  # at least half of both apart
    direction = (3 * draw[2]).floor() - 1
    movers = Movers(y, 2 * draw[3], half, half / 2, direction, 15 * draw[4])
    found = simulate(movers, torch.zeros(8), 12, fps)
    along = (found[..., None] - found[..., None, :]).abs() - half[..., None] - half[:, None]
    across = (movers.aside[..., None] - movers.aside[:, None]).abs() - (half[..., None] + half[:, None]) / 2
    apart = torch.maximum(along, across.expand_as(along)) + 10 * torch.eye(number)
    start = apart[0].clamp(max=0)
    assert bool((apart >= start - 1e-4).all())


@pytest.mark.parametrize(("yaw", "moves"), [(0.0, True), (0.3, True), (1.5, False), (3.1, True)])
def test_people_walk_where_they_look(yaw: float, moves: bool) -> None:
    start = LAYOUT.sample(street("Urban", "pedestrian"), rng(0))
    scene = placed(start, x=4.0, y=20.0, yaw=yaw)
    y = LAYOUT.animate(scene, 9, FPS, rng(0)).attributes["y"][:, 1]
    assert bool(y[-1] != y[0]) == moves
    if moves:
        assert bool(y[-1] > y[0]) == (math.cos(yaw) > 0)


def test_frames_without_room_are_named() -> None:
    with pytest.raises(UserError, match=r"no room to drive: 100 frames at 10 per second take 9\.9 s.*--frames 41 or"):
        LAYOUT.animate(drawn(SimpleStreets(1, 1), 1), 100, 10.0, rng(0))
    check_room(60.0, 41, 10.0)
    with pytest.raises(UserError, match="streets have 0 m"):
        check_room(MIN_VIEW - 5, 2, 10.0)


def test_the_camera_moves_with_its_frames() -> None:
    """A parked car's place in the camera's axes, from its 3D box, against its attributes."""
    view = StreetView(size=(32, 104))
    frames = LAYOUT.animate(drawn(SimpleStreets(1, 1), 2, layout=LAYOUT), 5, 4.0, rng(2))
    boxes, of = view.render_labelled(frames).boxes3d.double(), frames.environment
    objects = [i for i, name in enumerate(OBJECTS, FIRST_OBJECT_CLASS_INDEX) if name in ("car", "house")]
    chosen = torch.isin(frames.classes, torch.tensor(objects))
    height, x, y, z = boxes[..., 0], *boxes[..., 3:6].unbind(-1)
    middle = torch.stack([x, y - height / 2, z, torch.ones_like(x)], -1)
    found = (view.poses(frames).double()[:, None] @ middle[..., None])[..., :2, 0]
    expected = torch.stack([frames.attributes["x"], frames.attributes["y"]], -1).double()
    assert (found - expected)[chosen].abs().max() < 0.15  # boxes lean with the camera's pitch
    assert not torch.equal(of["camera_y"][:1], of["camera_y"][1:2])
