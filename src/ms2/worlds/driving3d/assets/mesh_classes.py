"""Mesh classes of the driving world: meshes, sizes and colours, procedural or from files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal

import numpy as np

from ms2.render.scene3d.meshes import Mesh
from ms2.worlds.driving3d.assets.buildings import make_houses, make_town_houses
from ms2.worlds.driving3d.assets.furniture import make_lights, make_poles, make_signs
from ms2.worlds.driving3d.assets.mesh_builder import Colour
from ms2.worlds.driving3d.assets.people import make_cyclists, make_pedestrians
from ms2.worlds.driving3d.assets.plants import make_bushes, make_trees
from ms2.worlds.driving3d.assets.vehicles import make_cars, make_trucks

WHITE: tuple[Colour, ...] = ((1.0, 1.0, 1.0),)
CAR_PAINT: tuple[Colour, ...] = (
    (0.09, 0.09, 0.10), (0.09, 0.09, 0.10), (0.13, 0.13, 0.14), (0.08, 0.09, 0.13),  # black
    (0.30, 0.31, 0.33), (0.38, 0.39, 0.41), (0.24, 0.26, 0.28),  # grey
    (0.68, 0.69, 0.70), (0.72, 0.73, 0.74), (0.62, 0.64, 0.66), (0.75, 0.74, 0.72),  # silver
    (0.90, 0.90, 0.89), (0.88, 0.88, 0.88), (0.92, 0.91, 0.88),  # white
    (0.10, 0.16, 0.34), (0.12, 0.22, 0.45), (0.22, 0.34, 0.50), (0.08, 0.11, 0.22),  # blue
    (0.52, 0.07, 0.08), (0.62, 0.09, 0.09), (0.36, 0.06, 0.09),  # red
    (0.12, 0.25, 0.18), (0.32, 0.38, 0.28), (0.50, 0.42, 0.30), (0.80, 0.62, 0.14),  # green, beige, yellow
)  # fmt: skip
"""Car colours with about the frequencies of Central European roads: mostly black, grey, silver and white."""
TRUCK_PAINT: tuple[Colour, ...] = (
    (0.90, 0.90, 0.89), (0.90, 0.90, 0.89), (0.88, 0.88, 0.86), (0.70, 0.71, 0.72), (0.14, 0.27, 0.52),
    (0.62, 0.10, 0.10), (0.85, 0.68, 0.14), (0.30, 0.32, 0.34), (0.16, 0.36, 0.25), (0.80, 0.42, 0.12),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (0.12, 0.12, 0.13), (0.16, 0.17, 0.20), (0.10, 0.11, 0.15), (0.30, 0.30, 0.31), (0.45, 0.45, 0.46),
    (0.86, 0.86, 0.84), (0.78, 0.79, 0.80), (0.14, 0.20, 0.36), (0.22, 0.34, 0.52), (0.55, 0.66, 0.76),
    (0.62, 0.10, 0.11), (0.42, 0.08, 0.12), (0.34, 0.27, 0.20), (0.62, 0.54, 0.42), (0.20, 0.30, 0.20),
    (0.36, 0.40, 0.26), (0.82, 0.62, 0.16), (0.72, 0.40, 0.50), (0.36, 0.24, 0.42), (0.10, 0.42, 0.46),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = (
    (0.52, 0.67, 0.38), (0.46, 0.62, 0.36), (0.40, 0.57, 0.35), (0.58, 0.70, 0.42), (0.43, 0.58, 0.42),
    (0.65, 0.73, 0.42), (0.49, 0.65, 0.32), (0.37, 0.52, 0.36), (0.70, 0.73, 0.46), (0.55, 0.62, 0.38),
    (0.77, 0.72, 0.41), (0.73, 0.66, 0.38),
)  # fmt: skip
"""Greens of a dry summer and some yellow, about as bright as KITTI's trees under the same contrast."""
PLASTER: tuple[Colour, ...] = (
    (0.90, 0.88, 0.83), (0.88, 0.83, 0.72), (0.92, 0.90, 0.87), (0.84, 0.77, 0.64), (0.80, 0.79, 0.77),
    (0.87, 0.78, 0.66), (0.78, 0.70, 0.60), (0.86, 0.81, 0.60), (0.74, 0.60, 0.50), (0.70, 0.72, 0.70),
    (0.82, 0.70, 0.62), (0.68, 0.52, 0.44),
)  # fmt: skip
DETAILED_CAR_PAINT: tuple[Colour, ...] = (
    *(CAR_PAINT[:4] * 2),
    *(CAR_PAINT[4:7] * 2),
    *(CAR_PAINT[7:11] * 2),
    *CAR_PAINT[11:],
)
"""Car colours of the detailed set: black, grey and silver twice as often."""
DETAILED_LEAVES: tuple[Colour, ...] = tuple((0.98 * r, 0.90 * g, 0.84 * b) for r, g, b in LEAVES)
"""Greens that are less saturated."""
FACADES: tuple[Colour, ...] = (
    *PLASTER,
    (0.74, 0.66, 0.56), (0.66, 0.58, 0.50), (0.70, 0.55, 0.44), (0.62, 0.60, 0.58), (0.55, 0.50, 0.47),
)  # fmt: skip
"""Plaster, sandstone and grey walls."""


@dataclass(frozen=True, eq=False)
class MeshClass:
    """Meshes, sizes and palette of one class.

    Attributes:
        models: Meshes of true size in metres, z up, front at +y, base centred at the origin.
        sizes: Width along x, length along y and height along z of each mesh.
        palette: Colours of its paint, common ones several times.
        far: Meshes of lower detail that replace ``models`` at a distance; empty for none.
    """

    models: tuple[Mesh, ...]
    sizes: tuple[tuple[float, float, float], ...]
    palette: tuple[Colour, ...]
    far: tuple[Mesh, ...] = ()

    @classmethod
    def from_meshes(cls, models: list[Mesh], palette: tuple[Colour, ...]) -> "MeshClass":
        """Build a mesh class with the sizes of its meshes."""
        spans = [np.ptp(mesh.vertices, axis=0) for mesh in models]
        return cls(tuple(models), tuple((float(x), float(y), float(z)) for x, y, z in spans), palette)


@dataclass(frozen=True)
class Procedure:
    """How the meshes of a class are made.

    Attributes:
        make: Function that builds the meshes.
        palette: Colours of their paint.
    """

    make: Callable[[], list[Mesh]]
    palette: tuple[Colour, ...]


PROCEDURES: dict[str, Procedure] = {
    "car": Procedure(make_cars, CAR_PAINT),
    "truck": Procedure(make_trucks, TRUCK_PAINT),
    "cyclist": Procedure(make_cyclists, CLOTHES),
    "pedestrian": Procedure(make_pedestrians, CLOTHES),
    "tree": Procedure(make_trees, LEAVES),
    "bush": Procedure(make_bushes, LEAVES),
    "house": Procedure(make_houses, PLASTER),
    "building": Procedure(make_town_houses, PLASTER),
    "sign": Procedure(make_signs, WHITE),
    "light": Procedure(make_lights, WHITE),
    "pole": Procedure(make_poles, WHITE),
}
"""How the meshes of each class are made."""


DETAILED_PROCEDURES: dict[str, Procedure] = PROCEDURES | {
    "car": Procedure(partial(make_cars, detailed=True), DETAILED_CAR_PAINT),
    "cyclist": Procedure(partial(make_cyclists, detailed=True), CLOTHES),
    "pedestrian": Procedure(partial(make_pedestrians, detailed=True), CLOTHES),
    "tree": Procedure(partial(make_trees, detailed=True), DETAILED_LEAVES),
    "bush": Procedure(make_bushes, DETAILED_LEAVES),
    "house": Procedure(make_houses, PLASTER),
    "building": Procedure(partial(make_town_houses, detailed=True), FACADES),
}
"""Those of the set "detailed"."""
MeshSet = Literal["plain", "detailed"]


@lru_cache(maxsize=2)
def procedural_classes(mesh_set: MeshSet = "plain") -> dict[str, MeshClass]:
    """Build all classes with procedural meshes."""
    procedures = DETAILED_PROCEDURES if mesh_set == "detailed" else PROCEDURES
    found = {name: MeshClass.from_meshes(one.make(), one.palette) for name, one in procedures.items()}
    trees = found["tree"]  # a wood has more triangles than everything else
    coarse = make_trees(far=mesh_set == "plain")  # the plain set's near ones are the detailed set's far ones
    far = tuple(_fitted_to(mesh, box_of) for mesh, box_of in zip(coarse, trees.models, strict=True))
    return found | {"tree": replace(trees, far=far)}


def _fitted_to(mesh: Mesh, box_of: Mesh) -> Mesh:
    """Scale a mesh to the bounding box of another."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    wanted_low, wanted_high = box_of.vertices.min(0), box_of.vertices.max(0)
    vertices = (mesh.vertices - low) / (high - low) * (wanted_high - wanted_low) + wanted_low
    return replace(mesh, vertices=vertices.astype(np.float32))


@lru_cache(maxsize=4)
def mesh_classes(
    assets: str | None = None, on_error: str = "raise", mesh_set: MeshSet = "plain"
) -> dict[str, MeshClass]:
    """Return all mesh classes by name (cached; do not modify).

    Args:
        assets: Folder with user meshes, which replace procedural ones: GLB and OBJ files in subfolders named by class;
            None for procedural meshes alone.
        on_error: How to handle unreadable files: "raise", or "skip" with a warning.
        mesh_set: Procedural meshes: "plain" or "detailed".

    Raises:
        UserError: If the folder is missing, or it or a file in it cannot be used.
    """
    found = dict(procedural_classes(mesh_set))
    if assets is not None:
        from ms2.worlds.driving3d.assets.folder import read_models

        for name, models in read_models(assets, tuple(PROCEDURES), on_error).items():
            found[name] = MeshClass.from_meshes(models, found[name].palette)
    return found
