"""Instances of the ground in driving scenes: road, parking strips, kerbs, pavements, verges and a field."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.render.scene3d.instances import InstanceBatch
from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.ground import KERB_HEIGHT
from ms2.worlds.driving3d.mesh_tables import MeshTables

TWO_LANE_ROADS, FOUR_LANE_ROAD = ("road_plain", "road_two"), "road_four"
"""Ground strips that the attribute ``road_look`` chooses from, and the one for four lanes."""
VERGES = ("grass", "grass", "gravel")
"""Ground strips that the attribute ``verge_look`` chooses from."""
MIN_CURVATURE = 1e-4
"""Curvature in 1/m below which a street is rendered straight: it deviates by 18 cm at 60 m."""
KERB_WIDTH = 0.2
"""Width of a kerb in metres."""


def ground_height(x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], scenes: SceneBatch) -> Float[Tensor, "b n"]:
    """Compute the height of the ground at positions: pavements, and verges beside them, are raised."""
    of = {name: values[:, None] for name, values in scenes.environment.items()}
    aside = x + of["offset"] - of["curve"] * y.square() / 2

    def on_side(what: str) -> Float[Tensor, "b n"]:
        return torch.where(aside < 0, of[f"{what}_left"], of[f"{what}_right"])

    walk, kerb = on_side("walk"), of["road_width"] / 2 + on_side("parking")
    raised = (walk > 0) & (aside.abs() > kerb) & (aside.abs() < kerb + KERB_WIDTH + walk + on_side("verge"))
    return torch.where(raised, KERB_HEIGHT, 0.0)


def ground_instances(scenes: SceneBatch, tables: MeshTables) -> InstanceBatch:
    """Build the instances of the field, of the skyline if there is one, and of all ground strips of each scene."""
    of = scenes.environment
    four, half = of["lanes"] >= 3, of["road_width"] / 2
    road = _select(of["road_look"], [tables.strip[name] for name in TWO_LANE_ROADS])
    road = torch.where(four[:, None], tables.strip[FOUR_LANE_ROAD], road)
    verge = _select(of["verge_look"], [tables.strip[name] for name in VERGES])
    level = torch.zeros_like(half)
    strips = [(road, level, of["road_width"], level)]
    for side, sign in (("left", -1), ("right", 1)):
        parking, walk, green = (of[f"{what}_{side}"] for what in ("parking", "walk", "verge"))
        raised = torch.where(walk > 0, KERB_HEIGHT, 0.0)
        kerb = half + parking
        strips += [
            (tables.strip["parking"], sign * (half + parking / 2), parking, level),
            (tables.strip["kerb"], sign * (kerb + KERB_WIDTH / 2), torch.where(walk > 0, KERB_WIDTH, 0.0), level),
            (tables.strip["walk"], sign * (kerb + KERB_WIDTH + walk / 2), walk, level + KERB_HEIGHT),
            (verge, sign * (kerb + walk + KERB_WIDTH + green / 2), green, raised - 0.02),
        ]
    parts = [_strip_instances(scenes, tables, *strip) for strip in strips]
    field = tables.field[(of["field_look"] * len(tables.field)).long().clamp(max=len(tables.field) - 1)]
    identity = torch.eye(4, device=half.device).expand(len(scenes), 4, 4)
    everywhere = [field]
    if len(tables.skyline):
        look = (of["walk_look"] * len(tables.skyline)).long().clamp(max=len(tables.skyline) - 1)
        everywhere.append(tables.skyline[look])
    mesh = torch.stack([*everywhere, *(mesh for mesh, _ in parts)], 1)
    transform = torch.stack([*(identity for _ in everywhere), *(matrix for _, matrix in parts)], 1)
    return InstanceBatch(mesh, transform, torch.ones(*mesh.shape, 3, device=half.device))


def _strip_instances(
    scenes: SceneBatch,
    tables: MeshTables,
    meshes: Int[Tensor, "*b c"],
    middle: Float[Tensor, " b"],
    width: Float[Tensor, " b"],
    height: Float[Tensor, " b"],
) -> tuple[Int[Tensor, " b"], Float[Tensor, "b 4 4"]]:
    """Choose the mesh of a ground strip, -1 where it has no width, and compute its transform.

    Meshes are 1 m wide and curved as x = c y^2 / 2. Scaled to a width w and by a factor a along y, the curvature is
    w c / a^2; so the mesh with c nearest to the street's curvature divided by w is chosen, and scaled along y to fit.
    """
    curve = scenes.environment["curve"]
    safe_width = width.clamp(min=0.05)
    wanted = (curve.abs() / safe_width).clamp(min=1e-9)
    nearest = (tables.curvatures[1:].log() - wanted.log()[:, None]).abs().argmin(1) + 1
    bent = curve.abs() > MIN_CURVATURE
    index = torch.where(bent, nearest, 0)
    along = torch.where(bent, (tables.curvatures[index] / wanted).sqrt(), 1.0)
    across = torch.where(bent & (curve < 0), -safe_width, safe_width)
    table = meshes.expand(len(scenes), -1)
    mesh = torch.where(width > 0, table.gather(1, index[:, None])[:, 0], -1)
    matrix = torch.zeros(len(scenes), 4, 4, device=curve.device)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2], matrix[:, 3, 3] = across, along, 1.0, 1.0
    matrix[:, 0, 3], matrix[:, 2, 3] = middle - scenes.environment["offset"], height
    return mesh, matrix


def _select(look: Float[Tensor, " b"], tables: Sequence[Int[Tensor, " c"]]) -> Int[Tensor, "b c"]:
    """Select one of the tables for each scene by an attribute in [0, 1]."""
    return torch.stack(list(tables))[(look * len(tables)).long().clamp(max=len(tables) - 1)]
