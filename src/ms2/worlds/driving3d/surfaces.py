"""What driving images show besides objects, and Cityscapes' ids of it all."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

SURFACE_MESHES: Mapping[str, tuple[str, ...]] = {
    "sky": (),
    "road": ("road",),
    "parking": ("parking",),
    "pavement": ("walk", "kerb"),
    "terrain": ("grass", "gravel", "field"),
    "skyline": ("skyline",),
}
"""First words of the names of each surface's meshes."""
SURFACES = tuple(SURFACE_MESHES)
"""Names of the surfaces, the sky first."""
OTHER_SURFACE = "terrain"
"""Surface of meshes that are not listed."""
CITYSCAPES_IDS: Mapping[str, int] = {
    "sky": 23, "road": 7, "parking": 9, "pavement": 8, "terrain": 22, "skyline": 4,
    "car": 26, "truck": 27, "cyclist": 25, "pedestrian": 24, "tree": 21, "bush": 21, "house": 11, "building": 11,
    "sign": 20, "light": 19, "pole": 17,
}  # fmt: skip
"""Cityscapes' label id of each class and surface; a cyclist is its rider, as bicycle and rider are one object here.
The skyline, woods and houses in one, is static background, which evaluation leaves out."""


def surface_index(mesh: str) -> int:
    """Return the index in `SURFACES` of a ground mesh, given its name."""
    word = mesh.split("_", 1)[0]
    found = [name for name, words in SURFACE_MESHES.items() if word in words]
    return SURFACES.index(found[0] if found else OTHER_SURFACE)


@lru_cache(maxsize=4)
def surface_table(meshes: tuple[str, ...]) -> Int[Tensor, " m"]:
    """Return the index in `SURFACES` of each mesh, given their names."""
    return torch.tensor([surface_index(name) for name in meshes])
