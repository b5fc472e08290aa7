"""The meshes of the driving world in one library, with tables that select them by class and attributes."""

import contextlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.render.scene3d.meshes import Mesh, MeshLibrary
from ms2.worlds.driving3d.assets.ground import CURVATURES, FIELDS, GROUND_STRIPS, ground_meshes
from ms2.worlds.driving3d.assets.mesh_classes import MeshSet, mesh_classes
from ms2.worlds.driving3d.assets.skyline import make_skylines
from ms2.worlds.driving3d.declaration import OBJECTS


class MeshTables(NamedTuple):
    """Meshes of k classes of objects and of the ground, with tables on one device.

    Attributes:
        library: All meshes; m of them are of objects, the first ones.
        first: Index of each class's first mesh.
        number: Number of each class's meshes.
        far: Index of the mesh that replaces each mesh at a distance.
        hull: Corners of the convex hull of each mesh of an object, of those at a distance too; padded by repeating one.
        palette: Colours of each class, padded.
        colours: Number of each class's colours.
        strip: Index of each ground strip's meshes, straight first, then with increasing curvature.
        curvatures: Curvature of those per metre.
        field: Index of each field's mesh.
        skyline: Index of each mesh of a skyline; empty for a bare horizon.
    """

    library: MeshLibrary
    first: Int[Tensor, " k"]
    number: Int[Tensor, " k"]
    far: Int[Tensor, " m"]
    hull: Float[Tensor, "a v 3"]
    palette: Float[Tensor, "k p 3"]
    colours: Int[Tensor, " k"]
    strip: dict[str, Int[Tensor, " c"]]
    curvatures: Float[Tensor, " c"]
    field: Int[Tensor, " f"]
    skyline: Int[Tensor, " h"]

    def to(self, device: torch.device) -> "MeshTables":
        """Move the tables to a device; the library is shared."""
        strip = {name: indices.to(device) for name, indices in self.strip.items()}
        others: dict[str, Any] = {
            name: value.to(device) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(strip=strip, **others)


@lru_cache(maxsize=4)
def load_mesh_tables(assets: str | None, on_error: str, mesh_set: MeshSet = "plain") -> MeshTables:
    """Collect the meshes, procedural or from the folder ``assets``, on the CPU; arguments as of `mesh_classes`."""
    found = mesh_classes(assets, on_error, mesh_set)
    meshes = {f"{name}_{i}": mesh for name in OBJECTS for i, mesh in enumerate(found[name].models)}
    far_meshes = {f"{name}_{i}_far": mesh for name in OBJECTS for i, mesh in enumerate(found[name].far)}
    detailed = mesh_set == "detailed"
    horizons = {f"skyline_{i}": mesh for i, mesh in enumerate(make_skylines())} if detailed else {}
    numbers = [len(found[name].models) for name in OBJECTS]
    library = MeshLibrary(meshes | far_meshes | ground_meshes(detailed) | horizons)

    def indices(names: Iterable[str]) -> Int[Tensor, " c"]:
        return torch.tensor([library.index_of(name) for name in names], dtype=torch.long)

    palettes = [torch.tensor(found[name].palette) for name in OBJECTS]
    return MeshTables(
        library,
        first=torch.tensor([0, *numbers]).cumsum(0)[:-1],
        number=torch.tensor(numbers),
        far=indices(f"{name}_far" if f"{name}_far" in far_meshes else name for name in meshes),
        hull=_hulls([*meshes.values(), *far_meshes.values()]),
        palette=torch.nn.utils.rnn.pad_sequence(palettes, batch_first=True),
        colours=torch.tensor([len(palette) for palette in palettes]),
        strip={name: indices(f"{name}_{c}" for c in range(len(CURVATURES))) for name in GROUND_STRIPS},
        curvatures=torch.tensor(CURVATURES),
        field=indices(f"field_{name}" for name in FIELDS),
        skyline=indices(horizons),
    )


def _hulls(meshes: Sequence[Mesh]) -> Float[Tensor, "a v 3"]:
    """Return the corners of each mesh's convex hull, padded by repeating one; all vertices of a flat mesh."""
    from scipy.spatial import ConvexHull, QhullError  # takes a while to import

    found = []
    for mesh in meshes:
        corners = mesh.vertices
        with contextlib.suppress(QhullError):
            corners = corners[ConvexHull(corners.astype(float)).vertices]
        found.append(torch.as_tensor(corners, dtype=torch.float32))
    longest = max(map(len, found))
    return torch.stack([torch.cat([corners, corners[:1].expand(longest - len(corners), 3)]) for corners in found])
