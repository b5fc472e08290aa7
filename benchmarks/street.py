"""A street of boxes, cylinders, cones and textured ground for benchmarks: about 40 objects in a scene."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ms2.core.seeding import generator
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import Mesh, MeshLibrary, concatenate_meshes
from ms2.render.scene3d.shapes import box, cylinder, ellipsoid, flat_shaded, plane

FOCAL = 241.6
"""Focal length in pixels of an image 416 pixels wide, as of KITTI's cameras."""
GROUND, ROAD, WALK, CAR, TREE, PINE, HOUSE, PERSON, SIGN = range(9)
NUMBERS = {CAR: 10, TREE: 5, PINE: 5, HOUSE: 10, PERSON: 6, SIGN: 4}


def _noise(rng: np.random.Generator, side: int, strength: float) -> np.ndarray:
    """Make a repeating texture of grey noise around 1, with coarse and fine grain."""
    total = np.ones((side, side))
    for grain in (8, 64, side):
        total += (rng.random((grain, grain)) - 0.5).repeat(side // grain, 0).repeat(side // grain, 1) * strength
    return total[..., None]


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def pictures() -> dict[str, np.ndarray]:
    """Make textures of grass, a marked road 14 m wide and 20 m long, paving stones and a wall with a window."""
    rng, side = np.random.default_rng(0), 256
    grass = np.array([0.30, 0.42, 0.18]) * _noise(rng, side, 0.3)
    road = np.array([0.33, 0.33, 0.34]) * _noise(rng, side, 0.12)
    x, y = np.linspace(-7, 7, side), np.linspace(0, 1, side)
    for place, dashed in ((-6.7, False), (6.7, False), (0.0, False), (-3.5, True), (3.5, True)):
        road[(abs(x - place) < 0.1)[None] & ((y < 0.4)[:, None] | (not dashed))] = 0.85
    walk = np.array([0.6, 0.58, 0.55]) * _noise(rng, side, 0.1)
    walk[:3] *= 0.7
    walk[:, :3] *= 0.7
    wall = np.array([0.9, 0.88, 0.85]) * _noise(rng, side, 0.06)
    u, v = np.meshgrid(x / 14, y - 0.5)
    wall[(abs(u) < 0.24) & (abs(v) < 0.3)] = 0.97
    wall[(abs(u) < 0.2) & (abs(v) < 0.26)] = (0.16, 0.2, 0.25)
    return {name: _bytes(p) for name, p in {"grass": grass, "road": road, "walk": walk, "wall": wall}.items()}


def _at(mesh: Mesh, x: float, y: float, z: float, roll: float = 0.0) -> Mesh:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    matrix[0, :3], matrix[2, :3] = (math.cos(roll), 0, math.sin(roll)), (-math.sin(roll), 0, math.cos(roll))
    return mesh.transformed(matrix)


def _car() -> Mesh:
    dark = (0.12, 0.13, 0.15)
    body = _at(box(1.75, 4.2, 0.55, paint=1.0, gloss=0.7), 0, 0, 0.32)
    cabin = _at(cylinder(1.25, 0.55, 0.95, 4, colour=dark, gloss=1.0), 0, 0, 0)
    turned = np.diag([1.0, 1.55, 1.0, 1.0])
    turned[:3, :3] = turned[:3, :3] @ _turn(math.pi / 4)
    cabin = _at(flat_shaded(cabin.transformed(turned)), 0, -0.25, 0.87)
    roof = _at(box(1.38, 2.12, 0.05, paint=1.0, gloss=0.7), 0, -0.25, 1.4)
    parts = [body, cabin, roof]
    for x in (-0.92, 0.7):
        for y in (-1.3, 1.3):
            parts.append(_at(cylinder(0.32, 0.22, segments=14, colour=(0.1, 0.1, 0.1)), x, y, 0.32, math.pi / 2))
    for x in (-0.7, 0.7):
        parts.append(_at(box(0.3, 0.06, 0.14, colour=(0.8, 0.1, 0.1)), x, -2.1, 0.62))
        parts.append(_at(box(0.3, 0.06, 0.14, colour=(1.0, 1.0, 0.9), gloss=0.5), x, 2.1, 0.62))
    return concatenate_meshes(*parts)


def _turn(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def library() -> MeshLibrary:
    """Make nine meshes, in the order of the constants above."""
    p = pictures()
    trunk = cylinder(0.18, 2.4, 0.13, 8, colour=(0.4, 0.3, 0.2))
    crown = [_at(ellipsoid((1.5, 1.4, 1.3), 10, 16, paint=1.0), x, y, z) for x, y, z in ((0, 0, 3.6), (0.8, 0.3, 3.1))]
    pine = [_at(cylinder(1.6 - 0.3 * i, 1.9, 0.0, 16, paint=1.0), 0, 0, 0.9 + i) for i in range(4)]
    house = box(8, 10, 6, texture=0, textures=(p["wall"],), paint=1.0)
    house = replace(house, uv=house.uv * 3)
    turned = np.eye(4)
    turned[:3, :3] = np.diag([1.0, 1.2, 1.0]) @ _turn(math.pi / 4)
    roof = _at(flat_shaded(cylinder(6.4, 2.4, 0.8, 4, colour=(0.6, 0.33, 0.26)).transformed(turned)), 0, 0, 6.0)
    person = [
        cylinder(0.2, 0.85, 0.16, 10, colour=(0.2, 0.22, 0.35)),
        _at(cylinder(0.2, 0.6, 0.24, 10, paint=1.0), 0, 0, 0.85),
        _at(ellipsoid((0.12, 0.13, 0.16), colour=(0.85, 0.68, 0.58)), 0, 0, 1.62),
    ]
    sign = [
        cylinder(0.04, 2.6, segments=8, colour=(0.6, 0.6, 0.6)),
        _at(box(0.7, 0.04, 0.7, colour=(0.85, 0.1, 0.1)), 0, -0.06, 2.0),
    ]
    ground = {"texture": 0, "casts_shadow": False}
    return MeshLibrary(
        {
            "ground": _at(plane(300, 300, (75, 75), textures=(p["grass"],), **ground), 0, 130, -0.05),
            "road": _at(plane(14, 260, (1, 13), textures=(p["road"],), **ground), 0, 110, 0),
            "walk": _at(plane(2.5, 260, (1, 104), textures=(p["walk"],), **ground), 0, 110, 0.14),
            "car": _car(),
            "tree": concatenate_meshes(trunk, *crown),
            "pine": concatenate_meshes(cylinder(0.15, 1.2, segments=8, colour=(0.35, 0.26, 0.18)), *pine),
            "house": concatenate_meshes(house, roof),
            "person": concatenate_meshes(*person),
            "sign": concatenate_meshes(*sign),
        }
    )


def scenes(
    number: int, device: torch.device | str = "cpu", grey: bool = False
) -> tuple[InstanceBatch, Camera, Lighting]:
    """Sample random streets with the same numbers of objects, sunny or overcast."""
    rng = generator("benchmark", "street")

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(number, *shape, generator=rng)

    mesh = torch.tensor([GROUND, ROAD, WALK, WALK, *(kind for kind, many in NUMBERS.items() for _ in range(many))])
    n = len(mesh)
    x, y, z, yaw = torch.zeros(number, n), torch.zeros(number, n), torch.zeros(number, n), torch.zeros(number, n)
    x[:, 2], x[:, 3] = -8.25, 8.25
    side = torch.randint(2, (number, n), generator=rng) * 2.0 - 1
    among = {kind: mesh == kind for kind in NUMBERS}
    lane = torch.tensor([-5.25, -1.75, 1.75, 5.25])[torch.randint(4, (number, 10), generator=rng)]
    x[:, among[CAR]] = lane + draw(-0.3, 0.3, 10)
    y[:, among[CAR]] = 6 + 7 * torch.arange(10) + draw(0, 2, 10)
    yaw[:, among[CAR]] = torch.where(lane < 0, math.pi, 0.0)
    for kind, low, high in ((TREE, 10, 13), (PINE, 10, 13), (HOUSE, 18, 22), (PERSON, 7.3, 9.2), (SIGN, 7.4, 7.6)):
        many = NUMBERS[kind]
        x[:, among[kind]] = side[:, among[kind]] * draw(low, high, many)
        y[:, among[kind]] = 8 + torch.arange(many) * 70 / many + draw(0, 4, many)
    x[:, among[HOUSE]] = x[:, among[HOUSE]].abs() * torch.tensor([-1.0, 1.0]).repeat(5)
    z[:, among[PERSON]] = 0.14
    z[:, among[SIGN]] = 0.14
    colour = torch.rand(number, n, 3, generator=rng) * 0.8 + 0.1
    green = among[TREE] | among[PINE]
    colour[:, green] = torch.tensor([0.3, 0.5, 0.2]) + draw(-0.08, 0.08, int(green.sum()), 3)
    colour[:, among[HOUSE]] = 0.6 + 0.3 * colour[:, among[HOUSE]]
    instances = InstanceBatch.place_upright(
        mesh.expand(number, -1).contiguous(), torch.stack([x, y, z], -1), yaw, torch.ones(number, n, 3), colour,
        (mesh >= CAR).expand(number, -1),
    )  # fmt: skip
    one = torch.ones(number, 1)
    camera = Camera.from_pinhole(one * torch.tensor([FOCAL, FOCAL]), one * torch.tensor([208.0, 60.0]))
    shift = torch.zeros(number, 3, 4)
    shift[:, 0, 3] = -1.75  # to the right lane
    camera = Camera(camera.focal, camera.centre, camera.pose + shift)
    environment = Lighting.overcast(number) if grey else Lighting.daylight(number)
    height, angle = draw(0.5, 1.1, 1), draw(-math.pi, math.pi, 1)
    sun = torch.cat([height.cos() * angle.sin(), height.cos() * angle.cos(), height.sin()], 1)
    if not grey:
        environment = replace(environment, sun=sun)
    device = torch.device(device)
    instances = InstanceBatch(**{name: part.to(device) for name, part in vars(instances).items()})
    return instances, camera.to(device), environment.to(device)
