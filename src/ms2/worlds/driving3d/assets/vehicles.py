"""Procedural cars, vans, trucks, buses and a tram."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ms2.render.scene3d.meshes import Mesh
from ms2.worlds.driving3d.assets.mesh_builder import Material, MeshBuilder, Point, translate

BODY_MATERIAL = Material(paint=1.0, gloss=0.55)
GLASS_MATERIAL = Material((0.10, 0.12, 0.14), gloss=0.9)
BLACK_MATERIAL = Material((0.10, 0.10, 0.11))
DARK_MATERIAL = Material((0.16, 0.16, 0.17), gloss=0.1)
TYRE_MATERIAL = Material((0.09, 0.09, 0.095))
PANEL_GAP_MATERIAL = Material((0.35, 0.35, 0.35), paint=1.0)
RIM_MATERIAL = Material((0.62, 0.63, 0.65), gloss=0.3)
STEEL_MATERIAL = Material((0.40, 0.40, 0.41))
LAMP_MATERIAL = Material((0.80, 0.82, 0.85), gloss=0.6)
TAIL_LIGHT_MATERIAL = Material((0.55, 0.04, 0.04), gloss=0.3)
AMBER_MATERIAL = Material((0.90, 0.45, 0.08), gloss=0.3)
PLATE_MATERIAL = Material((0.84, 0.84, 0.82))
WHITE_MATERIAL = Material((0.92, 0.92, 0.91), gloss=0.15)
WHEEL_SEGMENTS = 10
"""Number of corners of a wheel."""


@dataclass(frozen=True)
class CarShape:
    """Dimensions of a car body in metres; positions along it are relative to its centre, positive ahead.

    Attributes:
        length: Length of the car.
        width: Width without mirrors.
        height: Height of the roof.
        nose: Height of the bonnet's front edge.
        belt: Height of the windows' lower edge.
        tail: Height of the boot's rear edge.
        cowl: Position of the windscreen's foot.
        front: Position of the roof's front edge.
        back: Position of the roof's rear edge.
        foot: Position of the rear window's foot.
        pillars: Positions of the pillars between side windows, at their feet.
        glazed: Position of the rear end of the side windows.
        axles: Positions of the rear and of the front wheels.
        wheel: Radius of the wheels.
        ground: Height of the sills.
        lean: Half width of the roof as a fraction of that at the belt.
        rails: Whether it has roof rails.
    """

    length: float
    width: float
    height: float
    nose: float
    belt: float
    tail: float
    cowl: float
    front: float
    back: float
    foot: float
    pillars: tuple[float, ...]
    glazed: float
    axles: tuple[float, float]
    wheel: float = 0.31
    ground: float = 0.20
    lean: float = 0.80
    rails: bool = False


CARS = {
    "sedan": CarShape(4.55, 1.77, 1.43, 0.70, 0.93, 0.95, 0.95, 0.22, -0.95, -1.60, (-0.28,), -1.18, (-1.35, 1.38)),
    "hatchback": CarShape(
        4.05, 1.73, 1.46, 0.70, 0.93, 0.92, 1.05, 0.30, -1.30, -1.82, (-0.25, -1.05), -1.42, (-1.28, 1.27)
    ),
    "city": CarShape(
        3.55, 1.62, 1.50, 0.74, 0.96, 0.95, 0.98, 0.42, -1.22, -1.62, (-0.35,), -1.25, (-1.15, 1.18), 0.28
    ),
    "estate": CarShape(
        4.65, 1.79, 1.47, 0.70, 0.94, 0.95, 1.00, 0.28, -1.75, -2.15, (-0.25, -1.20), -1.85, (-1.38, 1.42), rails=True
    ),
    "suv": CarShape(
        4.50,
        1.85,
        1.69,
        0.90,
        1.07,
        1.05,
        1.08,
        0.40,
        -1.60,
        -2.02,
        (-0.22, -1.20),
        -1.72,
        (-1.32, 1.38),
        0.36,
        0.27,
        0.82,
        True,
    ),
    "minivan": CarShape(
        4.40,
        1.80,
        1.66,
        0.78,
        1.00,
        0.98,
        1.42,
        0.55,
        -1.78,
        -2.08,
        (-0.15, -1.20),
        -1.85,
        (-1.34, 1.40),
        0.32,
        0.20,
        0.80,
    ),
    "coupe": CarShape(4.30, 1.79, 1.35, 0.66, 0.89, 0.93, 0.80, 0.08, -0.72, -1.62, (-0.55,), -1.05, (-1.28, 1.32)),
    "caddy": CarShape(
        4.45, 1.80, 1.83, 0.82, 1.08, 1.06, 1.40, 0.72, -2.10, -2.19, (0.0,), -0.0, (-1.34, 1.38), 0.31, 0.20, 0.88
    ),
    "van": CarShape(
        4.95,
        1.92,
        2.02,
        0.98,
        1.18,
        1.15,
        1.98,
        1.18,
        -2.30,
        -2.43,
        (0.55, -0.80),
        -2.15,
        (-1.45, 1.55),
        0.33,
        0.22,
        0.88,
    ),
}
"""Car bodies by name, with sizes of cars that are common in Europe."""


DETAILED_CARS = {
    "compact": CarShape(
        4.20, 1.76, 1.48, 0.72, 0.94, 0.96, 1.10, 0.32, -1.42, -1.92, (-0.22, -1.10), -1.52, (-1.30, 1.30)
    ),
    "supermini": CarShape(
        3.90, 1.66, 1.47, 0.73, 0.95, 0.97, 1.05, 0.36, -1.28, -1.76, (-0.22, -1.02), -1.38, (-1.22, 1.24), 0.29
    ),
    "saloon": CarShape(
        4.70, 1.81, 1.44, 0.70, 0.94, 1.00, 0.85, 0.12, -1.05, -1.75, (-0.38,), -1.30, (-1.42, 1.44), 0.33
    ),
    "wagon": CarShape(
        4.78, 1.82, 1.49, 0.72, 0.96, 0.98, 0.98, 0.24, -1.85, -2.24, (-0.30, -1.28), -1.95, (-1.42, 1.46), rails=True
    ),
    "microcar": CarShape(
        2.70, 1.56, 1.54, 0.80, 1.02, 1.00, 0.90, 0.48, -0.98, -1.24, (-0.30,), -0.75, (-0.92, 0.94), 0.28
    ),
    "people_carrier": CarShape(
        4.62, 1.83, 1.72, 0.82, 1.03, 1.00, 1.50, 0.62, -1.92, -2.20, (-0.10, -1.22), -1.98, (-1.42, 1.44), 0.33
    ),
    "large_suv": CarShape(
        4.78, 1.92, 1.76, 0.95, 1.13, 1.10, 1.12, 0.40, -1.80, -2.20, (-0.28, -1.30), -1.92, (-1.42, 1.46), 0.38, 0.28
    ),
    "old_hatchback": CarShape(
        3.80, 1.62, 1.40, 0.74, 0.92, 0.92, 0.98, 0.40, -1.30, -1.78, (-0.25,), -1.40, (-1.20, 1.20), 0.28, 0.20, 0.86
    ),
}
"""Car bodies that the detailed set has beside `CARS`."""


def make_cars(detailed: bool = False) -> list[Mesh]:
    """Build the car meshes.

    Args:
        detailed: Whether to build more shapes, with rounder bodies.
    """
    shapes = {**CARS, **DETAILED_CARS} if detailed else CARS
    return [_car(shape, detailed) for shape in shapes.values()]


def _wheel(into: MeshBuilder, x: float, y: float, radius: float, width: float, rim: float = 0.66) -> None:
    """Add a wheel at the right with its outer face at x."""
    angle = 2 * math.pi * (np.arange(WHEEL_SEGMENTS) + 0.5) / WHEEL_SEGMENTS
    ring = np.stack([0 * angle, np.cos(angle), np.sin(angle)], 1)
    at = np.array([0, y, radius])
    outer, inner = ring * radius + at + [x, 0, 0], ring * radius + at + [x - width, 0, 0]
    into.loft([inner, outer], TYRE_MATERIAL, ends=(False, True))
    hub = translate(at, x + 0.012)
    disc = hub + ring * radius * rim
    for i in range(WHEEL_SEGMENTS):
        shades = (0.75, 0.95, 0.62) if i % 2 else (0.75, 0.62, 0.95)
        into.face([hub, disc[i], disc[(i + 1) % WHEEL_SEGMENTS]], RIM_MATERIAL, shade=shades)


def _car(s: CarShape, detailed: bool) -> Mesh:
    into = MeshBuilder(crease=38)
    half, end = s.width / 2, s.length / 2
    _shell(into, s, detailed)
    start = len(into)
    _side_windows(into, s)
    # mirror, wheels, lamps of the right side; the left is their mirror image
    m = s.cowl - 0.28
    into.box((half * 0.90, m - 0.10, s.belt + 0.02), (half + 0.13, m + 0.04, s.belt + 0.17), BODY_MATERIAL)
    for y in s.axles:
        _wheel(into, half - 0.015, y, s.wheel, 0.22)
    _lamps(into, s, LAMP_MATERIAL, 1.0, (0.50, s.nose - 0.22, s.nose - 0.085), 0.34)
    tall = s.height > 1.6 or s.rails
    depth = 0.5 if s.height > 1.8 else 0.36 if tall else 0.25
    _lamps(into, s, TAIL_LIGHT_MATERIAL, -1.0, (0.64 if tall else 0.54, s.tail - depth, s.tail - 0.07), 0.24)
    _doors(into, s)
    if s.rails:
        r = half * 0.86 * s.lean - 0.06
        into.box((r - 0.02, s.back + 0.25, s.height - 0.03), (r + 0.03, s.front - 0.2, s.height + 0.04), DARK_MATERIAL)
    into.mirror(start)
    front, rear = end + 0.014, -end - 0.014
    into.face(_upright(front, half * 0.42, s.nose - 0.19, s.nose - 0.08), BLACK_MATERIAL)
    into.face(_upright(front, half * 0.62, s.ground + 0.10, s.ground + 0.22), BLACK_MATERIAL)
    into.face(_upright(front + 0.006, 0.26, s.ground + 0.19, s.ground + 0.30), PLATE_MATERIAL)
    into.face(_upright(rear, half * 0.74, s.ground + 0.10, s.ground + 0.21), DARK_MATERIAL)
    plate = s.tail - (0.34 if tall else 0.24)
    into.face(_upright(rear - 0.006, 0.26, plate, plate + 0.11), PLATE_MATERIAL)
    return into.mesh()


def _lamps(
    into: MeshBuilder, s: CarShape, material: Material, way: float, face: tuple[float, float, float], reach: float
) -> None:
    """Add a lamp at the right corner of the front or rear.

    Args:
        into: Mesh to add the lamp to.
        s: Shape of the car.
        material: Material of the lamp.
        way: 1 for the front of the car, -1 for its rear.
        face: Inner edge as a fraction of half the car's width, and heights of the lower and upper edge in metres.
        reach: Length along the side in metres.
    """
    half, end = s.width / 2, s.length / 2
    inner, low, high = face
    places = [(half * inner, end + 0.012)]
    for edge in (0.0, 0.09, reach):
        places.append((half * _taper(edge) + (0.004 if edge else 0.0), end - edge + 0.012))
    for number, ((x, y), (u, v)) in enumerate(pairwise(places)):
        lift = 0.02 if number == 2 else 0.0  # narrower towards its end
        into.face(
            [(x, way * y, low), (u, way * v, low + lift), (u - 0.01, way * v, high + lift), (x - 0.004, way * y, high)],
            material,
        )


def _doors(into: MeshBuilder, s: CarShape) -> None:
    """Add the gaps beside the doors of the right side, and their handles."""
    half, waist = s.width / 2, 0.76 * s.belt
    joints = [s.cowl - 0.16, s.pillars[0], *(p for p in s.pillars[1:2] if p > s.axles[0] + s.wheel)]
    for y in joints:
        heights = [s.ground + 0.06, waist, s.belt - 0.05]
        sides = [half * 0.968 + 0.012, half + 0.008, half * 0.96 + 0.008]
        for (x, z), (u, w) in pairwise(zip(sides, heights, strict=True)):
            into.face([(x, y - 0.012, z), (x, y + 0.012, z), (u, y + 0.012, w), (u, y - 0.012, w)], PANEL_GAP_MATERIAL)
    for y in joints[1:]:
        x = half * 0.975 + 0.016
        into.face(
            [
                (x, y + 0.06, s.belt - 0.15),
                (x, y + 0.22, s.belt - 0.15),
                (x, y + 0.22, s.belt - 0.115),
                (x, y + 0.06, s.belt - 0.115),
            ],
            PANEL_GAP_MATERIAL,
        )


def _taper(edge: float) -> float:
    """Compute the relative width of a car at a distance in metres from its end."""
    return float(np.interp(edge, [0, 0.09, 0.42, 1.0], [0.80, 0.90, 0.985, 1.0]))


def _upright(y: float, half: float, low: float, high: float) -> list[Point]:
    """Build a rectangle across the car."""
    return [(-half, y, low), (half, y, low), (half, y, high), (-half, y, high)]


def _shell(into: MeshBuilder, s: CarShape, detailed: bool) -> None:
    """Add the body with wheel arches and greenhouse, and a dark interior; a detailed one is rounder."""
    half, end = s.width / 2, s.length / 2
    arch = s.wheel + 0.05
    places = {-end: 0.0, -end + 0.09: 0.0, -end + 0.42: 0.0, end: 0.0, end - 0.09: 0.0, end - 0.45: 0.0, s.cowl: 0.0}
    for axle in s.axles:
        for angle in (0.0, 40.0, 90.0, 140.0, 180.0):
            places[axle + arch * math.cos(math.radians(angle))] = arch * math.sin(math.radians(angle))
    places = {y: lift for y, lift in places.items() if abs(y) <= end}
    rings = []
    lifts = sorted(places.items())
    for y, lift in lifts:
        edge = end - abs(y)
        wide = half * _taper(edge)
        deck = float(
            np.interp(y, [-end, s.foot, s.cowl, end - 0.3, end], [s.tail, s.belt, s.belt, s.nose + 0.04, s.nose])
        )
        bottom = s.ground + (0.08 if edge < 0.05 else 0.0)
        if lift > 0.01:
            bottom = max(bottom, s.wheel + lift)
        waist = min(0.76 * s.belt, deck - 0.10)
        bottom = min(bottom, waist - 0.02)
        inset = 0.05 if edge < 0.05 else 0.0
        ring = [
            (wide * 0.965, y, bottom),
            (wide, y, waist),
            (wide * 0.96, y, deck - 0.05 - inset / 2),
            (wide * 0.87, y, deck - inset),
        ]
        if detailed:  # a shoulder below the windows, and a bonnet that is higher in the middle
            shoulder, crown = (wide * 0.99, y, (2 * (deck - 0.05) + waist) / 3), (wide * 0.5, y, deck + 0.03 - inset)
            ring = [*ring[:2], shoulder, *ring[2:], crown]
        rings.append(ring)
    both = [[*ring, *((-x, y, z) for x, y, z in ring[::-1])] for ring in rings]
    number = len(both[0]) - 2
    dark = [0.72, *[1.0] * number, 0.72]  # little light comes to where the road is near
    into.loft(both, BODY_MATERIAL, closed=False, shade=[dark] * len(both))
    into.face(both[0], BODY_MATERIAL, shade=dark)
    into.face(both[-1], BODY_MATERIAL, shade=dark)
    inner, floor = half * 0.72, s.ground + 0.02
    into.box((-inner, -end + 0.15, floor), (inner, end - 0.15, 0.72 * s.belt), BLACK_MATERIAL, bottom=True)
    low, high = half * 0.87, half * 0.87 * s.lean
    bow = 0.045
    profile = [
        (s.foot, s.belt - 0.02, low),
        (s.back, s.height - bow, high),
        ((s.back + s.front) / 2, s.height, high * 1.01),
        (s.front, s.height - bow, high),
        (s.cowl, s.belt - 0.02, low),
    ]
    across = ((1.0, 0.0), (0.93, 0.025), (0.7, 0.045), (0.3, 0.055)) if detailed else ((1.0, 0.0), (0.8, 0.02))
    rings = [
        [(way * share * x, y, z + rise) for way, part in ((1, across), (-1, across[::-1])) for share, rise in part]
        for y, z, x in profile
    ]
    into.loft(rings, BODY_MATERIAL, closed=False)
    for side in (1, -1):
        into.face([(side * x, y, z) for y, z, x in profile], BODY_MATERIAL)
    _screen(into, s, (s.cowl, s.front), 1.0)
    _screen(into, s, (s.foot, s.back), -1.0)


def _screen(into: MeshBuilder, s: CarShape, ys: tuple[float, float], way: float) -> None:
    """Add the windscreen (``way`` 1) or rear window (-1), slightly in front of the body."""
    half = s.width / 2 * 0.87
    rise = s.height - s.belt
    slope = np.array([0, ys[1] - ys[0], rise])
    out = np.cross([way, 0, 0], slope)
    out = out / np.linalg.norm(out) * (0.018 + 0.012)
    out = out * np.sign(out[1] * way)
    tall = abs(ys[1] - ys[0]) < 0.2
    first, last = (0.10, 0.86) if way > 0 else ((0.10, 0.84) if not tall else (0.12, 0.80))
    corners = []
    for fraction, sign in ((first, -1), (first, 1), (last, 1), (last, -1)):
        wide = half * (1 + (s.lean - 1) * fraction) - 0.075
        corners.append(np.array([sign * wide, ys[0], s.belt - 0.02]) + slope * fraction + out)
    into.face(corners, GLASS_MATERIAL)


def _side_windows(into: MeshBuilder, s: CarShape) -> None:
    """Add the windows between the pillars of the right side."""
    low, high = s.belt + 0.035, s.height - 0.125
    rise = s.height - s.belt

    def at(y: float, z: float) -> Point:
        return (s.width / 2 * 0.87 * (1 + (s.lean - 1) * (z - s.belt + 0.02) / (rise - 0.025)) + 0.022, y, z)

    def edge(foot: float, head: float, z: float) -> float:
        return foot + (head - foot) * (z - s.belt) / rise

    fore = [edge(s.cowl, s.front, z) - 0.10 for z in (low, high)]
    quick = abs(s.foot - s.back) / rise
    rear = [s.glazed, s.glazed + 0.9 * quick * (high - low) * (0.6 if s.glazed > s.foot + 0.2 else 1.0)]
    if s.glazed > s.pillars[-1] - 0.05:  # no pane behind the last pillar
        rear = [s.glazed, s.glazed]
        bounds = [fore, rear]
    else:
        bounds = [fore, *([p, p - 0.03] for p in s.pillars), rear]
    gap = 0.035
    for number, (a, b) in enumerate(pairwise(bounds)):
        g0 = 0.0 if number == 0 else gap
        g1 = 0.0 if number == len(bounds) - 2 else gap
        into.face([at(a[0] - g0, low), at(b[0] + g1, low), at(b[1] + g1, high), at(a[1] - g0, high)], GLASS_MATERIAL)


# --- trucks, buses and a tram ---


def make_trucks() -> list[Mesh]:
    """Build the truck, bus and tram meshes."""
    return [_box_truck(6.8, 2.3, 3.2, False), _box_truck(9.2, 2.5, 3.7, True), _tanker(), _tipper(), _bus(), _tram()]


def _wheels(into: MeshBuilder, half: float, places: tuple[float, ...], radius: float = 0.5, width: float = 0.3) -> None:
    start = len(into)
    for y in places:
        _wheel(into, half, y, radius, width, 0.55)
    into.mirror(start)


def _cab(
    into: MeshBuilder, y: float, half: float, top: float, deep: float = 2.0, material: Material = BODY_MATERIAL
) -> None:
    """Add a truck's cab with its front at y."""
    foot, belt = 0.45, 1.55
    profile = [
        (y - deep, foot),
        (y, foot),
        (y + 0.02, belt * 0.8),
        (y - 0.04, belt),
        (y - 0.30, top - 0.08),
        (y - 0.5, top),
    ]
    profile += [(y - deep, top)]
    for side in (1, -1):
        into.face([(side * half, a, z) for a, z in profile], material)
    into.loft([[(half, a, z), (-half, a, z)] for a, z in profile[1:]], material, closed=False)
    glass = [(half - 0.12, y - 0.02, belt + 0.08), (half - 0.2, y - 0.25, top - 0.3)]
    into.face([(-glass[0][0], *glass[0][1:]), glass[0], glass[1], (-glass[1][0], *glass[1][1:])], GLASS_MATERIAL)
    into.face(_upright(y + 0.04, half * 0.6, belt - 0.55, belt - 0.12), DARK_MATERIAL)
    into.face(_upright(y + 0.03, half - 0.02, foot, foot + 0.22), DARK_MATERIAL)
    into.face(_upright(y + 0.05, 0.26, foot + 0.05, foot + 0.17), PLATE_MATERIAL)
    start = len(into)
    x = half + 0.012
    into.face(
        [(x, y - 0.35, belt), (x, y - 1.25, belt - 0.05), (x, y - 1.25, top - 0.3), (x, y - 0.5, top - 0.3)],
        GLASS_MATERIAL,
    )
    into.face(
        [
            (half - 0.45, y + 0.04, foot + 0.28),
            (half - 0.05, y + 0.03, foot + 0.28),
            (half - 0.05, y + 0.03, foot + 0.46),
            (half - 0.45, y + 0.04, foot + 0.46),
        ],
        LAMP_MATERIAL,
    )
    into.box((half + 0.02, y - 0.14, belt + 0.05), (half + 0.2, y - 0.02, belt + 0.6), DARK_MATERIAL)
    into.mirror(start)


def _rear(into: MeshBuilder, y: float, half: float, z: float = 0.62) -> None:
    """Add the lamps and bumper of the rear end at y."""
    into.box((-half + 0.05, y, z - 0.1), (half - 0.05, y + 0.1, z + 0.1), DARK_MATERIAL)
    start = len(into)
    into.face(
        [
            (half - 0.5, y - 0.012, z - 0.07),
            (half - 0.1, y - 0.012, z - 0.07),
            (half - 0.1, y - 0.012, z + 0.07),
            (half - 0.5, y - 0.012, z + 0.07),
        ],
        TAIL_LIGHT_MATERIAL,
    )
    into.mirror(start)
    into.face(_upright(y - 0.015, 0.26, z - 0.06, z + 0.06), PLATE_MATERIAL)


def _chassis(into: MeshBuilder, rear: float, front: float, half: float) -> None:
    into.box((-half * 0.55, rear + 0.1, 0.5), (half * 0.55, front - 0.4, 0.95), BLACK_MATERIAL, bottom=True)


def _box_truck(length: float, width: float, height: float, painted: bool) -> Mesh:
    """Build a box truck whose box is painted, or white with a painted band."""
    into = MeshBuilder(crease=30)
    half, end = width / 2, length / 2
    _chassis(into, -end, end, half)
    _cab(into, end, half * 0.97, min(2.75, height - 0.45))
    low, front = 1.0, end - 2.15
    into.box(
        (-half, -end, low),
        (half, front, height),
        Material((0.93, 0.93, 0.92), paint=float(painted), gloss=0.1),
        bottom=True,
    )
    for z0, z1 in ((low, low + 0.12), (height - 0.1, height)):  # its frame
        into.loft(
            [
                [
                    (half + 0.012, front, z),
                    (-half - 0.012, front, z),
                    (-half - 0.012, -end - 0.012, z),
                    (half + 0.012, -end - 0.012, z),
                ]
                for z in (z0, z1)
            ],
            Material((0.72, 0.73, 0.74)),
        )
    start = len(into)
    x = half + 0.016
    mid = (front - end) / 2
    band = Material((0.90, 0.89, 0.85)) if painted else Material(paint=1.0)
    into.face([(x, front - 0.5, 1.75), (x, mid, 1.75), (x, mid, 2.35), (x, front - 0.5, 2.35)], band)
    into.face(
        [
            (x - 0.05, -end + 2.6, 0.5),
            (x - 0.05, front - 0.3, 0.5),
            (x - 0.05, front - 0.3, 0.95),
            (x - 0.05, -end + 2.6, 0.95),
        ],
        Material((0.45, 0.46, 0.47)),
    )
    into.mirror(start)
    into.face(_upright(-end - 0.016, 0.02, low + 0.14, height - 0.12), DARK_MATERIAL)
    _rear(into, -end, half)
    places = (-end + 1.7, end - 1.15) if length < 8 else (-end + 1.4, -end + 2.5, end - 1.3)
    _wheels(into, half - 0.03, places, 0.42 if length < 8 else 0.5)
    return into.mesh()


def _tanker() -> Mesh:
    into = MeshBuilder(crease=40)
    half, end = 1.25, 4.6
    _chassis(into, -end, end, half)
    _cab(into, end, half * 0.97, 2.85, 2.1)
    angle = 2 * math.pi * (np.arange(12) + 0.5) / 12
    ring = np.stack([1.2 * np.cos(angle), 0 * angle, 2.05 + 0.98 * np.sin(angle)], 1)
    middle = np.array([0, 0, 2.05])
    rings = [
        (ring - middle) * k + middle + [0, y, 0] for y, k in ((-end, 0.75), (-end + 0.2, 1), (2.1, 1), (2.3, 0.75))
    ]
    into.loft(rings, Material((0.80, 0.81, 0.83), gloss=0.5), ends=(True, True))
    for y in (-2.9, -1.1, 0.8):
        band = (ring - middle) * 1.012 + middle
        into.loft([translate(band, 0, y), translate(band, 0, y + 0.12)], Material((0.5, 0.51, 0.53)))
    into.box((-0.3, -3.6, 3.0), (0.3, 1.4, 3.12), STEEL_MATERIAL)
    into.face(_upright(-end - 0.03, 0.4, 1.85, 2.25), AMBER_MATERIAL)
    into.box((-1.2, -3.0, 0.95), (1.2, 1.9, 1.2), Material(paint=1.0), bottom=True)
    _rear(into, -end, half)
    _wheels(into, half - 0.03, (-3.3, -2.2, 3.3))
    return into.mesh()


def _tipper() -> Mesh:
    into = MeshBuilder(crease=30)
    half, end = 1.25, 3.9
    _chassis(into, -end, end, half)
    _cab(into, end, half * 0.97, 2.9, 2.0)
    low, high = [(-1.1, -end + 0.3), (1.1, -end + 0.3), (1.1, 1.6), (-1.1, 1.6)], 2.6
    top = [(-1.25, -end), (1.25, -end), (1.25, 1.75), (-1.25, 1.75)]
    skin = Material((0.88, 0.88, 0.88), paint=1.0)
    into.loft([[(x, y, 1.05) for x, y in low], [(x, y, high) for x, y in top]], skin, ends=(True, False))
    into.loft(
        [[(x * 1.02, y * 1.01, z) for x, y in top] for z in (high - 0.14, high)],
        Material((0.65, 0.65, 0.65), paint=1.0),
    )
    load = Material((0.50, 0.42, 0.33))
    ridge = [(0.1, -2.6, 2.95), (0.0, 0.6, 2.9)]
    rim = [(x, y, high - 0.1) for x, y in top]
    into.face([rim[0], rim[1], ridge[0]], load)
    into.face([rim[1], rim[2], ridge[1], ridge[0]], load)
    into.face([rim[2], rim[3], ridge[1]], load)
    into.face([rim[3], rim[0], ridge[0], ridge[1]], load)
    start = len(into)
    for y in (-3.0, -1.9, -0.8, 0.3, 1.4):
        into.face(
            [(1.13, y, 1.05), (1.13, y + 0.12, 1.05), (1.275, y + 0.12, high), (1.275, y, high)],
            Material((0.65, 0.65, 0.65), paint=1.0),
        )
    into.mirror(start)
    _rear(into, -end + 0.2, half, 0.75)
    _wheels(into, half - 0.03, (-2.6, -1.45, 2.65))
    return into.mesh()


def _coach_body(into: MeshBuilder, half: float, ends: tuple[float, float], low: float, top: float, belt: float) -> None:
    """Add the shell of a bus or tram with rounded roof edges."""
    rear, front = ends
    ring = [(-half, low), (-half, top - 0.25), (-half + 0.22, top), (half - 0.22, top), (half, top - 0.25), (half, low)]
    rings = []
    for y, k, lower in ((rear, 0.94, 0.12), (rear + 0.18, 1, 0), (front - 0.25, 1, 0), (front, 0.92, 0.15)):
        rings.append([(x * k, y, z if z < belt else z - lower) for x, z in ring])
    into.loft(rings, BODY_MATERIAL, ends=(True, True))
    into.loft(
        [
            [
                (x, y, z)
                for x, y in (
                    (-half - 0.01, rear + 0.2),
                    (half + 0.01, rear + 0.2),
                    (half + 0.01, front - 0.3),
                    (-half - 0.01, front - 0.3),
                )
            ]
            for z in (low, low + 0.2)
        ],
        DARK_MATERIAL,
    )


def _panes(
    into: MeshBuilder, half: float, ends: tuple[float, float], low: float, high: float, number: int, doors: set[int]
) -> None:
    """Add windows along both sides, and doors on the right."""
    rear, front = ends
    step = (front - rear) / number
    for side in (1, -1):
        for n in range(number):
            a, b = rear + n * step + 0.05, rear + (n + 1) * step - 0.05
            z = 0.45 if n in doors and side > 0 else low
            x = side * (half + 0.014)
            into.face([(x, a, z), (x, b, z), (x, b, high), (x, a, high)], GLASS_MATERIAL)


def _bus() -> Mesh:
    into = MeshBuilder(crease=50)
    half, end = 1.275, 5.9
    _coach_body(into, half, (-end, end), 0.32, 3.0, 1.0)
    _panes(into, half, (-end + 0.5, end - 0.35), 1.25, 2.45, 8, {2, 5, 7})
    into.face(_upright(end + 0.014, half * 0.88, 1.05, 2.35), GLASS_MATERIAL)
    into.face(_upright(end + 0.016, half * 0.7, 2.42, 2.72), Material((0.12, 0.10, 0.05)))
    into.face(_upright(end + 0.02, half * 0.45, 2.5, 2.64), AMBER_MATERIAL)
    into.face(_upright(-end - 0.014, half * 0.8, 1.6, 2.45), GLASS_MATERIAL)
    into.face(_upright(-end - 0.014, half * 0.6, 0.7, 1.2), DARK_MATERIAL)
    into.face(_upright(end + 0.014, 0.26, 0.5, 0.62), PLATE_MATERIAL)
    into.face(_upright(-end - 0.016, 0.26, 0.52, 0.64), PLATE_MATERIAL)
    into.box((-0.8, -4.5, 2.95), (0.8, -1.5, 3.2), WHITE_MATERIAL)
    start = len(into)
    into.face(
        [(0.75, end + 0.014, 0.62), (1.1, end + 0.01, 0.62), (1.1, end + 0.01, 0.82), (0.75, end + 0.014, 0.82)],
        LAMP_MATERIAL,
    )
    into.face(
        [(0.9, -end - 0.014, 0.75), (1.12, -end - 0.014, 0.75), (1.12, -end - 0.014, 1.3), (0.9, -end - 0.014, 1.3)],
        TAIL_LIGHT_MATERIAL,
    )
    into.box((half, end - 0.05, 1.9), (half + 0.22, end + 0.08, 2.3), DARK_MATERIAL)
    into.mirror(start)
    _wheels(into, half + 0.02, (-3.0, 3.1), 0.48)
    return into.mesh()


def _tram() -> Mesh:
    into = MeshBuilder(crease=50)
    half, end = 1.2, 7.0
    grey = Material((0.33, 0.34, 0.35))
    for rear, front in ((-end, -0.35), (0.35, end)):
        _coach_body(into, half, (rear, front), 0.35, 3.25, 1.0)
        _panes(into, half, (rear + 0.4, front - 0.5), 1.25, 2.5, 4, {1, 2})
        into.box((-0.9, rear + 0.8, 3.2), (0.9, front - 1.4, 3.45), grey)
    into.box((-half + 0.1, -0.4, 0.5), (half - 0.1, 0.4, 3.1), DARK_MATERIAL)
    for y, way in ((end, 1), (-end, -1)):
        into.face(_upright(y + 0.014 * way, half * 0.84, 1.15, 2.6), GLASS_MATERIAL)
        into.face(_upright(y + 0.02 * way, half * 0.5, 2.68, 2.9), AMBER_MATERIAL)
        for x in (-0.75, 0.75):
            into.face(
                [
                    (x - 0.15, y + 0.014 * way, 0.7),
                    (x + 0.15, y + 0.014 * way, 0.7),
                    (x + 0.15, y + 0.014 * way, 0.9),
                    (x - 0.15, y + 0.014 * way, 0.9),
                ],
                LAMP_MATERIAL if way > 0 else TAIL_LIGHT_MATERIAL,
            )
    into.box((-0.95, -end + 0.8, 0.0), (0.95, end - 0.8, 0.45), BLACK_MATERIAL)
    into.tube([(0, 1.2, 3.4), (0, 2.3, 4.2), (0, 1.4, 4.9)], [0.05] * 3, grey, 3)
    into.box((-0.8, 1.3, 4.88), (0.8, 1.5, 4.94), grey)
    return into.mesh()
