"""Motion of driving scenes: the camera drives, traffic follows its lanes, people walk. Metres, seconds and radians.

The street stays where it is, and the camera moves along it: frames have its position in the attributes ``camera_x`` and
``camera_y`` of the scene as a whole. Whatever moves keeps its distance from the middle of the street. Distances along
the street are measured along y, as where objects are placed.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ms2.core.errors import UserError
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.declaration import FIRST_OBJECT_CLASS_INDEX, OBJECT_CLASSES, Range

CAMERA_X, CAMERA_Y = "camera_x", "camera_y"
"""Attributes of a frame: position of the camera in the world; it is at the origin in scenes without them."""
CAMERA_SPEED = Range(6.0, 10.0)
"""Speed that the camera's car drives at on a free street."""
CAR_LENGTH, CAR_WIDTH = 4.8, 1.8
"""Size of the camera's car; it is not rendered."""
MIN_VIEW = 20.0
"""Length of the street that has to be ahead of the camera in the last frame."""
ROAD_END = 125.0
"""Distance up to which all streets are built: 150 m, a sixth less where meshes are scaled to a curvature."""
MAX_HEADING = 0.36
"""Largest deviation from the street's direction of people who walk along it, a little more than any class has."""
MIN_GAP = 0.5
"""Distance that who stops keeps."""
MAX_STEP = 0.1
"""Longest step of the simulation."""
ACCELERATION, DECELERATION, REACTION_TIME = 2.0, 4.0, 1.0
"""Of drivers and people, in the model of Krauß."""
NUM_STARTS = 8
"""Steps by which the speeds of a queue are made consistent before the first frame."""
FREE = 1e6
"""Free length ahead where nothing is in the way."""


class Movers(NamedTuple):
    """What is on a street, the camera's car last: m = n + 1.

    Attributes:
        y: Distance along the street.
        aside: Distance from the street's middle, positive on the right.
        half_length: Half of the length along the street.
        half_width: Half of the width across it.
        direction: 1 for what heads along y, -1 for what heads against it, 0 for what stands.
        speed: Speed on a free street.
    """

    y: Float[Tensor, "b m"]
    aside: Float[Tensor, "b m"]
    half_length: Float[Tensor, "b m"]
    half_width: Float[Tensor, "b m"]
    direction: Float[Tensor, "b m"]
    speed: Float[Tensor, "b m"]


class Way(NamedTuple):
    """What is ahead of each mover.

    Attributes:
        gap: Free length ahead; of what comes towards each other each has half.
        speed: Speed at which that what is ahead recedes.
    """

    gap: Float[Tensor, "b m"]
    speed: Float[Tensor, "b m"]


def animate_street(
    scenes: SceneBatch,
    sizes: Float[Tensor, "2 b n"],
    vehicles: Bool[Tensor, "b n"],
    max_distance: float,
    num_frames: int,
    fps: float,
    generator: Generator,
) -> SceneBatch:
    """Continue scenes in time.

    Vehicles on the road drive, and people who head along the street walk, each at a speed of its own; what is parked,
    off the street, or heads elsewhere stands. Speeds are those of the car-following model of Krauß (1998), which SUMO
    uses, without its random part: who drives can stop behind what is ahead. Nobody overtakes or turns, and movers head
    along the street exactly. Motion depends on the past alone: more frames begin with the same ones.

    Args:
        scenes: The scenes, at the time 0.
        sizes: Width and length of each object on the ground.
        vehicles: Which objects move only if they are on the road.
        max_distance: Distance up to which objects are placed.
        num_frames: Number of frames of each scene.
        fps: Frames per second.
        generator: Draws the speeds.

    Returns:
        The frames of all scenes, one scene after the other; an object has the same index in all frames of its scene.

    Raises:
        UserError: If the camera drives farther than the street goes on.
    """
    check_room(max_distance, num_frames, fps)
    movers = _movers(scenes, sizes, vehicles, generator)
    along = simulate(movers, scenes.environment["curve"], num_frames, fps)
    return _frames(scenes, movers, along)


def check_room(max_distance: float, num_frames: int, fps: float) -> None:
    """Raise a `UserError` if the camera drives farther than the street goes on; arguments as of `animate_street`."""
    room = min(max_distance, ROAD_END) - MIN_VIEW
    seconds = (num_frames - 1) / fps
    if seconds * CAMERA_SPEED.high > room:
        most = int(max(room, 0) / CAMERA_SPEED.high * fps) + 1
        raise UserError(
            f"there is no room to drive: {num_frames} frames at {fps:g} per second take {seconds:.3g} s, in which the "
            f"camera drives up to {seconds * CAMERA_SPEED.high:.0f} m, but streets have {max(room, 0):.0f} m. Give "
            f"--frames {most} or less, a higher --fps, or longer streets (--world.parameter_prior.max_distance, up to "
            f"{ROAD_END:.0f})."
        )


def simulate(movers: Movers, curve: Float[Tensor, " b"], num_frames: int, fps: float) -> Float[Tensor, "f b m"]:
    """Compute where movers are along the street in each frame.

    Args:
        movers: The movers at the time 0.
        curve: Curvature of each street.
        num_frames: Number of frames.
        fps: Frames per second.
    """
    steps = max(1, math.ceil(1 / (fps * MAX_STEP)))
    dt = 1 / (fps * steps)
    speed, y = movers.speed, movers.y
    for _ in range(NUM_STARTS):
        speed = speed.minimum(_safe_speed(_way(movers._replace(y=y), speed, curve)))
    found = [y]
    for _ in range(1, num_frames):
        for _ in range(steps):
            way = _way(movers._replace(y=y), speed, curve)
            speed = (speed + ACCELERATION * dt).minimum(movers.speed).minimum(_safe_speed(way))
            # that nothing touches does not depend on the model
            speed = speed.minimum(way.gap / dt)
            y = y + movers.direction * speed * dt
        found.append(y)
    return torch.stack(found)


def _way(movers: Movers, speed: Float[Tensor, "b m"], curve: Float[Tensor, " b"]) -> Way:
    """Find the nearest that is ahead of each mover, and overlaps with it across the street."""
    y, aside, half_length, half_width, direction, _ = movers
    slope = curve[:, None] * y
    slant = (1 + slope.square()).sqrt()  # where the street bends, objects are oblique to x and y
    long = half_length + half_width * slope.abs() / slant
    wide = half_width * slant + curve[:, None].abs() * long.square() / 2
    own = direction[:, :, None]
    apart = own * (y[:, None] - y[:, :, None])  # b i j: how far j is ahead of i
    across = (aside[:, None] - aside[:, :, None]).abs() < wide[:, None] + wide[:, :, None]
    gap = (apart - long[:, None] - long[:, :, None] - MIN_GAP).clamp(min=0)
    towards = own * direction[:, None] < 0
    gap = torch.where(across & (apart > 0), torch.where(towards, gap / 2, gap), FREE)
    nearest, index = gap.min(2)
    ahead = (speed * direction).gather(1, index) * direction  # speed along one's own direction
    return Way(nearest, torch.where(nearest < FREE, ahead.clamp(min=0), 0))


def _safe_speed(way: Way) -> Float[Tensor, "b m"]:
    """Compute the speed from which one can stop behind what is ahead, should that brake as hard (Krauß 1998)."""
    reach = DECELERATION * REACTION_TIME
    return (reach**2 + way.speed.square() + 2 * DECELERATION * way.gap).sqrt() - reach


def _movers(
    scenes: SceneBatch,
    sizes: Float[Tensor, "2 b n"],
    vehicles: Bool[Tensor, "b n"],
    generator: Generator,
) -> Movers:
    """Describe objects and the camera's car; arguments as of `animate_street`."""
    of, street = scenes.attributes, {name: value[:, None] for name, value in scenes.environment.items()}
    y = of["y"]
    aside = of["x"] + street["offset"] - street["curve"] * y.square() / 2
    heading = of["yaw"] + torch.atan(street["curve"] * y)  # relative to the street
    object_class = scenes.classes - FIRST_OBJECT_CLASS_INDEX
    low, high = _speeds(y.device)[:, torch.where(object_class < 0, len(OBJECT_CLASSES), object_class)]
    aligned = heading.sin().abs() <= math.sin(MAX_HEADING)
    moving = (high > 0) & aligned & (~vehicles | (aside.abs() < street["road_width"] / 2))
    draw = torch.rand((len(scenes), y.shape[1] + 1), generator=generator, device=y.device)
    cos, sin = heading.cos().abs(), heading.sin().abs()
    width, length = sizes / 2
    offset = street["offset"]
    one = torch.ones_like(offset)
    pairs = (
        (y, 0 * one),
        (torch.where(object_class < 0, FREE, aside), offset),  # what is no object is in nobody's way
        (length * cos + width * sin, CAR_LENGTH / 2 * one),
        (width * cos + length * sin, (CAR_WIDTH / 2 * one).minimum(offset.abs())),
        (torch.where(moving, torch.where(heading.cos() > 0, 1.0, -1.0), 0.0), one),
        (
            torch.where(moving, torch.lerp(low, high, draw[:, :-1]), 0.0),
            torch.lerp(CAMERA_SPEED.low * one, CAMERA_SPEED.high * one, draw[:, -1:]),
        ),
    )
    return Movers(*(torch.cat(pair, 1) for pair in pairs))


def _frames(scenes: SceneBatch, movers: Movers, along: Float[Tensor, "f b m"]) -> SceneBatch:
    """Build the frames from where movers are along the street in each."""
    f = len(along)
    of, street = scenes.attributes, scenes.environment

    def repeated(values: Tensor) -> Tensor:
        return values.repeat_interleave(f, 0)

    y, camera_y = (part.transpose(0, 1).flatten(0, 1) for part in (along[..., :-1], along[..., -1]))
    curve, start = repeated(street["curve"]), repeated(of["y"])
    bend = curve[:, None]
    moving = repeated(movers.direction[:, :-1]) != 0
    heading = torch.where(repeated(movers.direction[:, :-1]) < 0, math.pi, 0.0) - torch.atan(bend * y)
    heading = (heading + math.pi) % (2 * math.pi) - math.pi
    x = repeated(of["x"]) + bend * (y.square() - start.square()) / 2
    attributes = {name: repeated(values) for name, values in of.items()}
    environment = {name: repeated(values) for name, values in street.items()}
    made = SceneBatch(repeated(scenes.classes), repeated(scenes.parents), attributes, environment)
    return made.with_attributes(
        x=torch.where(moving, x, attributes["x"]),
        y=torch.where(moving, y, attributes["y"]),
        yaw=torch.where(moving, heading, attributes["yaw"]),
    ).with_environment(
        camera_yaw=environment["camera_yaw"] - torch.atan(curve * camera_y),
        **{CAMERA_X: curve * camera_y.square() / 2, CAMERA_Y: camera_y},
    )


@lru_cache(maxsize=8)
def _speeds(device: torch.device) -> Float[Tensor, "2 k1"]:
    """Return the lowest and highest speed of each class, and last, of what is no object."""
    return torch.tensor([*(cls.speed or (0.0, 0.0) for cls in OBJECT_CLASSES.values()), (0.0, 0.0)]).T.to(device)
