"""Where objects of driving scenes stand, measured from their meshes and attributes alone."""

from functools import lru_cache

import torch
from torch import Tensor

from ms2.scene.batch import SceneBatch
from ms2.worlds.driving3d.assets.mesh_classes import MeshSet, mesh_classes
from ms2.worlds.driving3d.declaration import FIRST_OBJECT_CLASS_INDEX, OBJECT_CLASSES, OBJECTS


@lru_cache(maxsize=2)
def footprints(mesh_set: MeshSet = "plain") -> list[list[tuple[float, float]]]:
    """Width and length of each model of each class; the diameter at the ground, twice, for what stands on a post."""
    found, classes = [], mesh_classes(mesh_set=mesh_set)
    for name in OBJECTS:
        rows = []
        for mesh, (width, length, height) in zip(classes[name].models, classes[name].sizes, strict=True):
            low = mesh.vertices[mesh.vertices[:, 2] <= 0.05 * height][:, :2]
            across = 2 * float(abs(low).max())
            rows.append((across, across) if OBJECT_CLASSES[name].post_mounted else (width, length))
        found.append(rows)
    return found


def ground(scenes: SceneBatch, mesh_set: MeshSet = "plain") -> tuple[Tensor, Tensor]:
    """Half width and length of each object on the ground, and its middle."""
    of, half = scenes.attributes, torch.zeros(*scenes.classes.shape, 2)
    for i, j in (scenes.classes >= FIRST_OBJECT_CLASS_INDEX).nonzero().tolist():
        models = footprints(mesh_set)[int(scenes.classes[i, j]) - FIRST_OBJECT_CLASS_INDEX]
        width, length = models[min(int(of["model"][i, j] * len(models)), len(models) - 1)]
        half[i, j] = torch.tensor([width * of["width"][i, j], length * of["length"][i, j]]) / 2
    return half, torch.stack([of["x"], of["y"]], -1)


def depths(scenes: SceneBatch, mesh_set: MeshSet = "plain") -> Tensor:
    """How deep each two objects of a scene stand in each other, in metres; negative where they don't.

    By separating axes: of two rectangles the four directions of their sides, of a disc and a rectangle that to the
    nearest point, of two discs that between their middles.
    """
    half, middle = ground(scenes, mesh_set)
    yaw = scenes.attributes["yaw"]
    post_mounted = [False] * FIRST_OBJECT_CLASS_INDEX + [cls.post_mounted for cls in OBJECT_CLASSES.values()]
    posts = torch.tensor(post_mounted)[scenes.classes]
    axes = torch.stack([torch.stack([yaw.cos(), yaw.sin()], -1), torch.stack([-yaw.sin(), yaw.cos()], -1)], -2)
    between = middle[:, None] - middle[:, :, None]  # b i j 2
    apart = between.norm(dim=-1)
    own = torch.einsum("bijd,bikd->bijk", between, axes).abs()  # along the axes of the first
    # reach of the second along the axes of the first
    other = torch.einsum("bijkl,bjl->bijk", torch.einsum("bikd,bjld->bijkl", axes, axes).abs(), half)
    gap = (own - half[:, :, None] - other).amax(-1)
    boxes = torch.maximum(gap, gap.transpose(1, 2))
    outside = own - half[:, :, None]
    disc = torch.where((outside > 0).any(-1), outside.clamp(min=0).norm(dim=-1), outside.amax(-1)) - half[:, None, :, 0]
    first, second = posts[:, :, None], posts[:, None]
    gap = torch.where(second, disc, torch.where(first, disc.transpose(1, 2), boxes))
    gap = torch.where(first & second, apart - half[:, :, None, 0] - half[:, None, :, 0], gap)
    real = scenes.classes >= FIRST_OBJECT_CLASS_INDEX
    pairs = real[:, :, None] & real[:, None] & ~torch.eye(real.shape[1], dtype=torch.bool)
    return torch.where(pairs, -gap, -torch.inf)


def beside(scenes: SceneBatch) -> Tensor:
    """Metres to the right of the street's middle."""
    of, env = scenes.attributes, {name: values[:, None] for name, values in scenes.environment.items()}
    return of["x"] + env["offset"] - env["curve"] * of["y"] ** 2 / 2
