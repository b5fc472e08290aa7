"""Optical flow from one frame of 3D scenes to the next, from depth and the motion of camera and objects."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.scene import Scene3D

MIN_NEARNESS = 1e-3
"""Depth in the next frame, as a fraction of that in this one, below which a point is behind the camera or beside it."""
DEPTH_TOLERANCE = 0.02
"""Fraction by which a visible point may be farther away than what is drawn at its pixel and around it."""


class OpticalFlow(NamedTuple):
    """Optical flow of b frames.

    Attributes:
        flow: Motion of each pixel's point to the next frame, to the right and down, in pixels.
        valid: Where the point is in front of the next frame's camera.
        visible: Where it is visible in the next frame: within the image, and not occluded.
    """

    flow: Float[Tensor, "b 2 h w"]
    valid: Bool[Tensor, "b h w"]
    visible: Bool[Tensor, "b h w"]


def optical_flow(
    before: Scene3D,
    after: Scene3D,
    drawn: Int[Tensor, "b h w"],
    depth: Float[Tensor, "b h w"],
    next_drawn: Int[Tensor, "b h w"],
    next_depth: Float[Tensor, "b h w"],
) -> OpticalFlow:
    """Compute where the point that each pixel shows is in the next frame; instances move rigidly.

    The sky is infinitely far away, and moves as the camera turns.

    Args:
        before: The frames.
        after: The next frame of each, with the same instances.
        drawn: Index of the instance visible at each pixel; -1 for the sky.
        depth: Distance along the optical axis; infinite for the sky.
        next_drawn: The same of the next frames.
        next_depth: The same of the next frames.
    """
    motion = camera_motions(before, after)
    columns, rows = _pixel_centres(before.camera, *drawn.shape[1:])
    ray = _ray(before.camera, columns, rows)
    point = [*ray, torch.ones_like(depth), depth.reciprocal()]  # times the inverse depth, which is 0 of the sky
    chosen = (drawn + 1).long().flatten(1)

    def moved(row: int) -> Float[Tensor, "b h w"]:
        terms = (motion[:, :, row, k].gather(1, chosen).view(depth.shape) * point[k] for k in range(4))
        return sum(terms, torch.zeros_like(depth))

    x, y, nearness = moved(0), moved(1), moved(2)
    valid = nearness > MIN_NEARNESS
    z = torch.where(valid, nearness, 1)
    focal, centre = after.camera.focal[..., None, None], after.camera.centre[..., None, None]
    column, row = focal[:, 0] * x / z + centre[:, 0], focal[:, 1] * y / z + centre[:, 1]
    flow = torch.stack([column - columns, row - rows], 1) * valid[:, None]
    next_depth_of_point = z * depth
    visible = valid & _is_visible(column, row, drawn, next_depth_of_point, next_drawn, next_depth)
    return OpticalFlow(flow, valid, visible)


def camera_motions(before: Scene3D, after: Scene3D) -> Float[Tensor, "b n1 3 4"]:
    """Compute the motion of each instance from the camera's axes in one frame to those in the next.

    The first entry is that of what stands still, such as the sky; those of unused entries are the same.
    """
    placed = before.instances.mesh[..., None, None] >= 0
    still = torch.eye(4, dtype=torch.float64, device=placed.device)
    start, end = (torch.where(placed, of.transform.double(), still) for of in (before.instances, after.instances))
    world = end @ torch.linalg.inv(start)
    world = torch.cat([still.expand(len(world), 1, 4, 4), world], 1)
    pose, next_pose = _square(before.camera.pose), _square(after.camera.pose)
    return (next_pose[:, None] @ world @ torch.linalg.inv(pose)[:, None])[:, :, :3].float()


def _square(pose: Float[Tensor, "b 3 4"]) -> Float[Tensor, "b 4 4"]:
    last = pose.new_tensor([0, 0, 0, 1]).double().expand(len(pose), 1, 4)
    return torch.cat([pose.double(), last], 1)


def _pixel_centres(camera: Camera, height: int, width: int) -> tuple[Float[Tensor, " w"], Float[Tensor, "h 1"]]:
    """Return the columns and rows of the pixels' centres, from the image's edges."""
    device = camera.focal.device
    return torch.arange(width, device=device) + 0.5, (torch.arange(height, device=device) + 0.5)[:, None]


def _ray(
    camera: Camera, columns: Float[Tensor, " w"], rows: Float[Tensor, "h 1"]
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Return x and y of the direction of each pixel, whose z is 1, in the camera's axes."""
    focal, centre = camera.focal[..., None, None], camera.centre[..., None, None]
    x, y = (columns - centre[:, 0]) / focal[:, 0], (rows - centre[:, 1]) / focal[:, 1]
    return x.expand(-1, len(rows), -1), y.expand(-1, -1, len(columns))


def _is_visible(
    column: Float[Tensor, "b h w"],
    row: Float[Tensor, "b h w"],
    drawn: Int[Tensor, "b h w"],
    depth: Float[Tensor, "b h w"],
    next_drawn: Int[Tensor, "b h w"],
    next_depth: Float[Tensor, "b h w"],
) -> Bool[Tensor, "b h w"]:
    """Return which points are within the next image, on a pixel of their instance, and not behind what is there."""
    height, width = drawn.shape[1:]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
    # surfaces at a grazing angle are farther away at the pixel's other end
    farthest = F.max_pool2d(next_depth[:, None], 3, stride=1, padding=1)[:, 0]
    limit = farthest.flatten(1).gather(1, pixel.flatten(1)).view(depth.shape)
    same = next_drawn.flatten(1).gather(1, pixel.flatten(1)).view(drawn.shape) == drawn
    return inside & same & (depth <= limit * (1 + DEPTH_TOLERANCE))
