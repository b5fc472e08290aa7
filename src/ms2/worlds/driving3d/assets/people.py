"""Procedural pedestrians and cyclists."""

import math
from dataclasses import dataclass

import numpy as np

from ms2.render.scene3d.meshes import Mesh
from ms2.worlds.driving3d.assets.mesh_builder import Colour, Material, MeshBuilder, Point, translate

SHIRT_MATERIAL = Material(paint=1.0)
JEANS, CHINOS, BLACK, GREY = (0.20, 0.26, 0.38), (0.52, 0.45, 0.35), (0.11, 0.11, 0.12), (0.34, 0.34, 0.35)
FAIR, TAN, BROWN = (0.84, 0.66, 0.55), (0.72, 0.54, 0.42), (0.42, 0.29, 0.22)
DARK_HAIR, BLOND, RED_HAIR, GREY_HAIR = (0.12, 0.09, 0.07), (0.62, 0.48, 0.28), (0.42, 0.20, 0.10), (0.58, 0.57, 0.55)


@dataclass(frozen=True)
class Outfit:
    """Clothes and hair; the top is tinted by the instance's colour.

    Attributes:
        trousers: Colour of the trousers.
        skin: Colour of the skin.
        hair: Colour of the hair.
        shoes: Colour of the shoes.
        long_hair: Whether the hair falls on the shoulders.
        sleeves: Whether the sleeves reach the hands.
        shorts: Whether the trousers leave the shins bare.
        coat: Length in metres by which the top hangs down over the legs.
        skirt: Whether a skirt in the colour of the trousers is worn.
        bag: Where a bag is carried: "" for none, "back" or "hand".
        helmet: Colour of the helmet; None for none.
    """

    trousers: Colour = JEANS
    skin: Colour = FAIR
    hair: Colour = DARK_HAIR
    shoes: Colour = (0.14, 0.12, 0.11)
    long_hair: bool = False
    sleeves: bool = True
    shorts: bool = False
    coat: float = 0.0
    skirt: bool = False
    bag: str = ""
    helmet: Colour | None = None


@dataclass(frozen=True)
class Pose:
    """Positions in metres of a person's joints, for a height of 1.75 m; limbs are ordered left, right.

    Attributes:
        pelvis: Lower end of the spine.
        neck: Upper end of the spine.
        head: Centre of the head.
        knees: Positions of the knees.
        feet: Positions of the ankles.
        elbows: Positions of the elbows.
        hands: Positions of the wrists.
        hip: Distance of the hips from the pelvis.
        shoulder: Distance of the shoulders from the neck.
        toes: Distance of the toes ahead of the ankle.
    """

    pelvis: Point
    neck: Point
    head: Point
    knees: tuple[Point, Point]
    feet: tuple[Point, Point]
    elbows: tuple[Point, Point]
    hands: tuple[Point, Point]
    hip: float = 0.095
    shoulder: float = 0.185
    toes: float = 0.17


def _walking(stride: float, arms: float = 0.8, lean: float = 0.03) -> Pose:
    """Build the pose of a step with the left leg ahead by an angle in radians; 0 for standing."""
    thigh, shin, upper, lower = 0.44, 0.44, 0.29, 0.27
    knees, feet, elbows, hands = [], [], [], []
    drop = 0.88 * (1 - math.cos(stride)) * 0.9
    pelvis, neck = (0.0, 0.0, 0.945 - drop), (0.0, lean, 1.475 - drop)
    for side, way in ((-1, 1), (1, -1)):
        bend = 0.12 + (0.75 if way < 0 else 0.15) * abs(stride)
        a = stride * way + (0.10 if way > 0 else 0.0) * (stride > 0)
        knee = (side * 0.10, pelvis[1] + thigh * math.sin(a), pelvis[2] - thigh * math.cos(a))
        foot = (side * 0.105, knee[1] + shin * math.sin(a - bend), max(0.07, knee[2] - shin * math.cos(a - bend)))
        swing = -stride * way * arms
        elbow = (side * 0.245, neck[1] + upper * math.sin(swing), neck[2] - 0.05 - upper * math.cos(swing))
        forward = swing + 0.25 + 0.4 * abs(stride)
        hand = (side * 0.255, elbow[1] + lower * math.sin(forward), elbow[2] - lower * math.cos(forward))
        knees.append(knee)
        feet.append(foot)
        elbows.append(elbow)
        hands.append(hand)
    head = (0.0, lean + 0.03, neck[2] + 0.155)
    return Pose(pelvis, neck, head, tuple(knees), tuple(feet), tuple(elbows), tuple(hands))  # type: ignore[arg-type]


def _figure(
    into: MeshBuilder,
    pose: Pose,
    style: Outfit,
    scale: float = 1.0,
    head: float = 1.0,
    width: float = 1.0,
    detailed: bool = False,
) -> None:
    """Add a person; children have relatively larger heads.

    Args:
        into: Mesh to add the person to.
        pose: Positions of the joints.
        style: Clothes and hair.
        scale: Factor on all sizes.
        head: Factor on the size of the head.
        width: Factor on the width of the trunk.
        detailed: Whether trunk and limbs are rounder.
    """
    corners, sides = (10, 8) if detailed else (7, 5)
    start = len(into)
    skin, legs, shoes = Material(style.skin), Material(style.trousers), Material(style.shoes)
    pelvis, neck = np.array(pose.pelvis), np.array(pose.neck)
    spine = neck - pelvis
    fore = np.cross([1.0, 0, 0], spine / np.linalg.norm(spine)) * -1.0
    angle = 2 * math.pi * (np.arange(corners) + 0.25) / corners

    def ring(fraction: float, wide: float, deep: float) -> np.ndarray:
        side = np.array([1.0, 0, 0]) * (wide * width)
        found: np.ndarray = (
            pelvis + spine * fraction + np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * fore * deep
        )
        return found

    trunk = [ring(-0.10, 0.145, 0.10), ring(0.04, 0.165, 0.115), ring(0.35, 0.145, 0.105), ring(0.72, 0.185, 0.125)]
    trunk += [ring(0.93, 0.175, 0.095), ring(1.04, 0.062, 0.062)]
    into.loft(
        trunk,
        [legs, SHIRT_MATERIAL, SHIRT_MATERIAL, SHIRT_MATERIAL, SHIRT_MATERIAL],
        shade=(0.8, 0.85, 0.95, 1, 1, 0.95),
    )
    if style.coat or style.skirt:
        drop = style.coat or 0.48
        hang = -drop / float(np.linalg.norm(spine))
        lower = ring(hang, 0.20, 0.16 if style.skirt else 0.21)
        into.loft(
            [lower, ring(0.02, 0.172, 0.122), ring(0.3, 0.152, 0.112)],
            legs if style.skirt else SHIRT_MATERIAL,
            shade=(0.8, 0.9, 1),
        )
    for side, knee, foot in zip((-1, 1), pose.knees, pose.feet, strict=True):
        hip = translate(pelvis, side * pose.hip, 0, -0.02)
        ankle = np.array(foot)
        shin = skin if style.shorts or style.skirt else legs
        into.tube([tuple(hip), knee, tuple(ankle)], [0.088 * width, 0.062, 0.045], [legs, shin], sides, (False, False))
        x, y, z = foot
        into.loft(
            [
                [
                    (x - 0.045, y - 0.08, z - 0.07),
                    (x + 0.045, y - 0.08, z - 0.07),
                    (x + 0.045, y + pose.toes, z - 0.07),
                    (x - 0.045, y + pose.toes, z - 0.07),
                ],
                [
                    (x - 0.04, y - 0.06, z + 0.01),
                    (x + 0.04, y - 0.06, z + 0.01),
                    (x + 0.03, y + pose.toes - 0.07, z - 0.02),
                    (x - 0.03, y + pose.toes - 0.07, z - 0.02),
                ],
            ],
            shoes,
            ends=(False, True),
        )
    for side, elbow, hand in zip((-1, 1), pose.elbows, pose.hands, strict=True):
        shoulder = translate(neck, side * pose.shoulder * width, 0, -0.05)
        way = np.array(hand) - np.array(elbow)
        tip = np.array(hand) + way / np.linalg.norm(way) * 0.09
        materials = [SHIRT_MATERIAL, SHIRT_MATERIAL if style.sleeves else skin, skin]
        top = translate(neck, side * 0.10 * width, 0, -0.015)
        points = [tuple(top), tuple(shoulder), elbow, hand, tuple(tip)]
        into.tube(points, [0.04, 0.062, 0.048, 0.038, 0.03], [SHIRT_MATERIAL, *materials], sides)
    _head(into, np.array(pose.head), style, head)
    if style.bag == "back":
        a, b = translate(neck, 0, -0.10, -0.42), translate(neck, 0, -0.27, -0.04)
        into.box(
            (-0.14, float(b[1]), float(a[2])),
            (0.14, float(a[1]), float(b[2])),
            Material((0.17, 0.19, 0.22)),
            bottom=True,
        )
    elif style.bag == "hand":
        x, y, z = pose.hands[1]
        into.box(
            (x - 0.05, y - 0.17, z - 0.42),
            (x + 0.05, y + 0.17, z - 0.1),
            Material((0.36, 0.22, 0.14)),
            bottom=True,
        )
    into.scale(scale, start)


def _head(into: MeshBuilder, at: np.ndarray, style: Outfit, size: float) -> None:
    """Add face and hair, or a helmet."""
    rows = [(-0.14, 0.052, 0.02), (-0.07, 0.070, 0.018), (0.01, 0.082, 0.005), (0.10, 0.05, -0.005)]
    angle = 2 * math.pi * (np.arange(7) + 0.25) / 7

    def ring(z: float, radius: float, ahead: float) -> np.ndarray:
        circle = np.stack([np.cos(angle) * radius, np.sin(angle) * radius * 1.18 + ahead, 0 * angle + z], 1)
        found: np.ndarray = at + size * circle
        return found

    into.loft([ring(*row) for row in rows], Material(style.skin), ends=(False, True))
    cover = Material(style.helmet, gloss=0.2) if style.helmet else Material(style.hair)
    k = 1.22 if style.helmet else 1.1
    low = 0.045 if style.helmet else -0.01
    cap = [ring(low, 0.084 * k, -0.03), ring(0.07, 0.082 * k, -0.016), ring(0.125, 0.046 * k, -0.01)]
    if style.long_hair:
        cap = [ring(-0.17, 0.075, -0.065), *cap]
    into.loft(cap, cover, ends=(False, True))


def make_pedestrians(detailed: bool = False) -> list[Mesh]:
    """Build the pedestrian meshes.

    Args:
        detailed: Whether to build more and rounder ones.
    """
    walk, stroll, stand = _walking(0.42), _walking(0.28), _walking(0.03)
    people = [
        (walk, Outfit(), 1.02, 1.0, 1.0),
        (walk, Outfit(BLACK, TAN, BLOND, long_hair=True, bag="hand"), 0.95, 1.0, 0.9),
        (stand, Outfit(CHINOS, FAIR, GREY_HAIR), 1.0, 1.0, 1.06),
        (stroll, Outfit(GREY, FAIR, RED_HAIR, long_hair=True, coat=0.38), 0.94, 1.0, 0.92),
        (stroll, Outfit((0.30, 0.34, 0.42), BROWN, DARK_HAIR, sleeves=False, bag="back"), 1.03, 1.0, 1.0),
        (walk, Outfit(CHINOS, FAIR, BLOND, (0.8, 0.8, 0.8), sleeves=False, shorts=True), 1.0, 1.0, 1.0),
        (stroll, Outfit(JEANS, FAIR, BLOND, (0.6, 0.2, 0.2), bag="back"), 0.70, 1.25, 1.0),
        (stand, Outfit((0.45, 0.18, 0.22), TAN, DARK_HAIR, long_hair=True, skirt=True), 0.93, 1.0, 0.9),
        (walk, Outfit((0.13, 0.14, 0.17), TAN, DARK_HAIR, coat=0.30), 1.04, 1.0, 1.04),
    ]
    if detailed:
        hurry, look = _walking(0.50, 1.0, 0.06), _walking(0.10, 0.4)
        people += [
            (hurry, Outfit(JEANS, FAIR, DARK_HAIR, bag="back"), 1.01, 1.0, 1.0),
            (walk, Outfit((0.24, 0.24, 0.26), FAIR, GREY_HAIR, coat=0.34), 0.98, 1.0, 1.10),
            (stroll, Outfit(JEANS, TAN, DARK_HAIR, long_hair=True, sleeves=False), 0.93, 1.0, 0.9),
            (look, Outfit(BLACK, FAIR, BLOND, sleeves=False), 1.02, 1.0, 1.02),
            (stroll, Outfit(CHINOS, FAIR, GREY_HAIR, bag="hand"), 0.96, 1.0, 1.12),
            (hurry, Outfit((0.16, 0.18, 0.24), BROWN, DARK_HAIR, coat=0.22), 1.05, 1.0, 1.0),
            (walk, Outfit((0.34, 0.32, 0.30), FAIR, RED_HAIR, long_hair=True, bag="back"), 0.95, 1.0, 0.92),
            (look, Outfit(JEANS, FAIR, BLOND, long_hair=True), 0.62, 1.3, 1.0),
            (stroll, Outfit((0.20, 0.22, 0.20), FAIR, DARK_HAIR, shorts=True, sleeves=False), 1.03, 1.0, 1.06),
        ]
    found = []
    for pose, style, scale, head, width in people:
        into = MeshBuilder(crease=65)
        _figure(into, pose, style, scale, head, width, detailed)
        found.append(into.mesh())
    return found


def _bicycle(into: MeshBuilder, colour: Colour, basket: bool, detailed: bool = False) -> None:
    """Add a city bicycle with wheels at y = -0.53 and 0.53; a detailed one has rims and spokes, and thicker rods."""
    radius, tyre, frame = 0.34, Material((0.10, 0.10, 0.10)), Material(colour, gloss=0.2)
    angle = 2 * math.pi * np.arange(14) / 14
    for y in (-0.53, 0.53):
        ring = np.stack([0 * angle, np.cos(angle), np.sin(angle)], 1)
        at = np.array([0, y, radius])
        inner = at + ring * (radius - 0.05)
        into.loft([at + ring * radius + [-0.025, 0, 0], at + ring * radius + [0.025, 0, 0], inner], tyre)
        guard = [at + ring[k] * (radius + 0.025) for k in range(0, 9, 2)]
        into.loft(
            [[translate(p, -0.03, 0, 0), translate(p, 0.03, 0, 0)] for p in guard],
            Material((0.35, 0.36, 0.38)),
            closed=False,
        )
        if detailed:
            into.loft([inner, at + ring * (radius - 0.08)], Material((0.55, 0.56, 0.58), gloss=0.3))
            for k in range(0, 14, 2):
                into.tube(
                    [tuple(at), tuple(at + ring[k] * (radius - 0.06))], [0.006, 0.006], Material((0.5, 0.5, 0.52)), 3
                )
    saddle, crank, bars, fork = (0, -0.22, 0.90), (0, -0.07, 0.30), (0, 0.40, 1.02), (0, 0.37, 0.80)
    rods: list[tuple[Point, Point]] = [
        (crank, saddle),
        (crank, fork),
        ((0, -0.17, 0.70), fork),
        (crank, (0, -0.53, 0.34)),
    ]
    rods += [((0, -0.2, 0.74), (0, -0.53, 0.34)), ((0, 0.53, 0.34), bars), ((-0.27, 0.30, 1.03), (0.27, 0.30, 1.03))]
    for a, b in rods:
        thick = 0.026 if detailed else 0.02
        into.tube([a, b], [thick, thick], frame, 3, (False, False))
    into.box((-0.07, -0.36, 0.90), (0.07, -0.10, 0.95), tyre)
    into.face(
        [(-0.04, -0.88, 0.5), (0.04, -0.88, 0.5), (0.04, -0.88, 0.58), (-0.04, -0.88, 0.58)],
        Material((0.7, 0.05, 0.05)),
    )
    if basket:
        into.box((-0.17, 0.48, 0.82), (0.17, 0.76, 1.06), Material((0.38, 0.28, 0.18)), bottom=True)


def _riding(upright: float, turn: float) -> Pose:
    """Build the pose of a cyclist with the pedals rotated by an angle."""
    pelvis = np.array([0, -0.22, 0.98])
    neck = translate(pelvis, 0, 0.52 * math.sin(upright), 0.52 * math.cos(upright))
    knees, feet = [], []
    for side, phase in ((-1, turn), (1, turn + math.pi)):
        pedal = np.array([side * 0.11, -0.07 + 0.17 * math.cos(phase), 0.30 + 0.17 * math.sin(phase) + 0.07])
        hip = translate(pelvis, side * 0.095, 0, -0.02)
        way = pedal - hip
        reach = float(np.linalg.norm(way))
        out = np.cross([1.0, 0, 0], way / reach)
        out = out * np.sign(out[1])
        knees.append(tuple(hip + way / 2 + out * math.sqrt(max(0.445**2 - (reach / 2) ** 2, 0.01))))
        feet.append(tuple(pedal))
    hands = ((-0.25, 0.29, 1.06), (0.25, 0.29, 1.06))
    elbows = tuple(
        tuple((neck + h) / 2 + [math.copysign(0.08, h[0]) + h[0] * 0.1, -0.06, -0.09]) for h in np.array(hands)
    )
    head = translate(neck, 0, 0.07, 0.16)
    return Pose(tuple(pelvis), tuple(neck), tuple(head), tuple(knees), tuple(feet), elbows, hands)  # type: ignore[arg-type]


def make_cyclists(detailed: bool = False) -> list[Mesh]:
    """Build the cyclist meshes.

    Args:
        detailed: Whether to build more and rounder ones.
    """
    riders = [
        (_riding(0.30, 0.6), Outfit(), (0.15, 0.20, 0.35), False, 1.0),
        (_riding(0.22, 2.2), Outfit(CHINOS, FAIR, BLOND, long_hair=True), (0.55, 0.10, 0.10), True, 0.92),
        (
            _riding(0.62, 4.0),
            Outfit(BLACK, TAN, sleeves=False, shorts=True, helmet=(0.85, 0.86, 0.88)),
            (0.75, 0.76, 0.78),
            False,
            1.0,
        ),
        (
            _riding(0.35, 5.2),
            Outfit(GREY, FAIR, GREY_HAIR, bag="back", helmet=(0.15, 0.16, 0.2)),
            (0.12, 0.12, 0.13),
            False,
            1.0,
        ),
    ]
    if detailed:
        riders += [
            (_riding(0.28, 1.5), Outfit(JEANS, FAIR, DARK_HAIR, sleeves=False), (0.50, 0.51, 0.53), False, 1.04),
            (_riding(0.18, 3.1), Outfit((0.2, 0.2, 0.22), FAIR, GREY_HAIR, coat=0.2), (0.10, 0.22, 0.16), True, 1.1),
            (_riding(0.40, 4.7), Outfit(JEANS, TAN, DARK_HAIR, bag="back"), (0.60, 0.12, 0.10), False, 1.0),
            (
                _riding(0.25, 0.1),
                Outfit(BLACK, FAIR, BLOND, long_hair=True, skirt=True),
                (0.70, 0.71, 0.72),
                True,
                0.92,
            ),
        ]
    found = []
    for pose, style, colour, basket, width in riders:
        into = MeshBuilder(crease=65)
        _bicycle(into, colour, basket, detailed)
        _figure(into, pose, style, 1.0, 1.0, width, detailed)
        found.append(into.mesh())
    return found
