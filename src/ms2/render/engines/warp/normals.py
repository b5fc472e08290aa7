"""Normals of what is visible, from the visibility buffer; in Torch, as they are needed for ground truth alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOW_32_BITS = 0xFFFFFFFF


class VisibleTriangles(NamedTuple):
    """What was drawn of b scenes: n instances in all, k triangles, samples in rows.

    Attributes:
        samples: Visibility buffer: q = 1 / w in the upper 32 bits, the triangle's index counted down in the lower ones.
        instance: Index of each triangle's instance.
        corners: Indices of each triangle's three vertices, and of its texture.
        planes: What shading needs of each triangle, as in `ms2.render.engines.warp.structs.TriangleSetup`.
        vertex_normals: Normals of the meshes' vertices.
        to_world: Matrix of each instance from the mesh's normals to the world's, of any length.
    """

    samples: Int[Tensor, "b H W"]
    instance: Int[Tensor, " k"]
    corners: Int[Tensor, "k 4"]
    planes: Float[Tensor, "k 4 4"]
    vertex_normals: Float[Tensor, "V 3"]
    to_world: Float[Tensor, "n 3 3"]


def visible_normals(
    drawn: VisibleTriangles, ids: Int[Tensor, "b h w"], rotation: Float[Tensor, "b 3 3"], instances_per_scene: int
) -> Float[Tensor, "b 3 h w"]:
    """Compute the shading normal of each pixel in the camera's axes, of unit length; zeros for the sky.

    It is the mean over the pixel's samples that show the instance that the pixel belongs to, of the visible side.

    Args:
        drawn: What was drawn.
        ids: Index in its scene of the instance that each pixel belongs to; -1 for the sky.
        rotation: Rotations from the world's to the cameras' axes.
        instances_per_scene: Number of instances of each scene.
    """
    b, height, width = ids.shape
    step = drawn.samples.shape[1] // height
    scene = torch.arange(b, device=ids.device)[:, None, None]
    owner = torch.where(ids >= 0, ids + scene * instances_per_scene, -1)
    total = torch.zeros(b, height, width, 3, device=ids.device)
    for j in range(step):
        for i in range(step):
            keys = drawn.samples[:, j::step, i::step]
            triangle = torch.where(keys != 0, LOW_32_BITS - (keys & LOW_32_BITS), 0)
            shown = (keys != 0) & (drawn.instance[triangle] == owner)
            place = shown.nonzero(as_tuple=True)
            x, y = place[2] * step + i + 0.5, place[1] * step + j + 0.5
            total[place] += _shading_normals(drawn, triangle[place], x, y)
    camera = (rotation[:, None, None] @ total[..., None])[..., 0]
    length = camera.norm(dim=-1, keepdim=True)
    return (camera / length.clamp(min=1e-12)).permute(0, 3, 1, 2).contiguous()


def _shading_normals(
    drawn: VisibleTriangles, triangle: Int[Tensor, " p"], x: Float[Tensor, " p"], y: Float[Tensor, " p"]
) -> Float[Tensor, "p 3"]:
    """Interpolate normals of triangles at places in the image, counted in samples, as shading does."""
    planes = drawn.planes[triangle]
    u, v = x - planes[:, 0, 3], y - planes[:, 1, 3]
    share = planes[:, :3, 0] * u[:, None] + planes[:, :3, 1] * v[:, None] + planes[:, :3, 2]
    total = share.sum(1, keepdim=True)
    weights = share / torch.where(total == 0, 1e-30, total)
    corners = drawn.vertex_normals[drawn.corners[triangle, :3]]
    normal = (drawn.to_world[drawn.instance[triangle]] @ (corners * weights[..., None]).sum(1)[..., None])[..., 0]
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-15)
    facing = (normal * planes[:, 3, :3]).sum(1, keepdim=True)  # the fourth plane is the visible side's normal
    return torch.where(facing < 0, -normal, normal)
