"""Warp structs and helper functions of the kernels.

Image coordinates are counted in samples from the left and upper edges; sample 0 has its centre at 0.5. Projected
vertices are homogeneous: (x w, y w, w), where w is the distance along the optical axis in metres. Distances are stored
as their reciprocal q = 1 / w, which is linear in image coordinates.
"""

from typing import Any, no_type_check

import warp as wp

# No backward pass: it would double the compile time. No machine-specific instructions: machines may share a cache, and
# their pixels are compared. Inlining avoids copies of structs at each call, which take an eighth of the time.
OPTIONS: dict[str, Any] = {"enable_backward": False, "cpu_compiler_flags": "-mllvm=-inline-threshold=9000"}
"""Options of every module of kernels, each of which Warp compiles separately."""

mat34 = wp.types.matrix(shape=(3, 4), dtype=wp.float32)

SHADOW_BLOCK = wp.constant(8)
"""Samples along each side of the blocks of a shadow map of which an upper bound of the depths is kept."""
LOW_32_BITS = wp.constant(wp.uint64(0xFFFFFFFF))


@wp.struct
@no_type_check
class MeshData:
    """Packed meshes; fields as in `ms2.render.engines.warp.packing.PackedMeshes`."""

    position: wp.array[wp.vec3]
    normal: wp.array[wp.vec4]
    colour: wp.array[wp.vec4]
    uv: wp.array[wp.vec2]
    triangle: wp.array[wp.vec4i]
    mesh: wp.array2d[wp.int32]
    texture: wp.array2d[wp.int32]
    texel: wp.array[wp.uint32]


@wp.struct
@no_type_check
class CameraData:
    """Cameras of b scenes, with focal lengths and principal points in samples."""

    focal: wp.array[wp.vec2]
    centre: wp.array[wp.vec2]
    pose: wp.array[mat34]
    near: wp.float32


@wp.struct
@no_type_check
class LightData:
    """Lighting of b scenes; fields as in `ms2.render.scene3d.lighting.Lighting`, and four that are computed.

    ``shadow_view`` maps world coordinates to the shadow map's columns, rows and depth towards the sun;
    ``shadow_filter`` has half the columns and half the rows over which shadows are averaged, in steps of some samples,
    how many these are, and the width of a sample in metres;
    ``camera_position`` and ``sun_direction`` (of unit length) are in world coordinates.
    """

    sun: wp.array[wp.vec3]
    sun_colour: wp.array[wp.vec3]
    ambient: wp.array[wp.vec3]
    bounce: wp.array[wp.vec3]
    fog: wp.array[wp.float32]
    fog_colour: wp.array[wp.vec3]
    horizon: wp.array[wp.vec3]
    zenith: wp.array[wp.vec3]
    softness: wp.array[wp.float32]
    shadow_view: wp.array[mat34]
    shadow_filter: wp.array[wp.vec4]
    camera_position: wp.array[wp.vec3]
    sun_direction: wp.array[wp.vec3]


@wp.struct
@no_type_check
class InstanceData:
    """The b x n instances, flattened, with the matrices that `transform_instances` computes.

    ``image`` maps the mesh's axes to homogeneous samples, ``shadow`` to the shadow map, ``normal`` to world normals.
    """

    per_scene: wp.int32
    mesh: wp.array[wp.int32]
    model: wp.array[wp.mat44]
    colour: wp.array[wp.vec3]
    labelled: wp.array[wp.uint8]
    image: wp.array[mat34]
    shadow: wp.array[mat34]
    normal: wp.array[wp.mat33]


@wp.struct
@no_type_check
class DrawList:
    """Triangles to draw: the instance of each triangle, and the index of each instance's first triangle."""

    instance: wp.array[wp.int32]
    first_triangle: wp.array[wp.int32]


@wp.struct
@no_type_check
class TriangleSetup:
    """What shading needs of each triangle of a draw list that covers samples, as `set_up_triangle` computes it.

    ``corners`` are its vertices and texture. ``planes`` has four rows of each triangle: the slopes and the value of
    each barycentric coordinate, and the normal; the fourth column is the point of the image at which values are given,
    and whether the mesh casts a shadow.
    """

    corners: wp.array[wp.vec4i]
    planes: wp.array[wp.vec4]


@wp.struct
@no_type_check
class LabelBuffers:
    """Buffers for labels of the b x n instances: boxes, masks, and numbers of samples.

    ``extent`` is the amodal box and ``window`` its part within the image, x0, y0, x1, y1 in samples; ``mask`` has one
    bit per sample of the window in rows of 32-bit words, of which an instance has ``mask_words`` from ``first_word``
    on. ``covered`` counts the samples that an instance covers without occluders, ``visible`` those at which it is
    visible; ``box`` is the box of its visible pixels.
    """

    extent: wp.array[wp.vec4]
    window: wp.array[wp.vec4i]
    mask_words: wp.array[wp.int32]
    first_word: wp.array[wp.int32]
    mask: wp.array[wp.uint32]
    covered: wp.array[wp.int32]
    visible: wp.array[wp.int32]
    box: wp.array2d[wp.int32]


@wp.func
@no_type_check
def smaller(a: float, b: float):
    """Return the smaller of two numbers, and a if one is NaN: one instruction, where `wp.min` needs four."""
    return wp.where(b < a, b, a)


@wp.func
@no_type_check
def larger(a: float, b: float):
    """Return the larger of two numbers, and a if one is NaN: one instruction, where `wp.max` needs four."""
    return wp.where(b > a, b, a)


@wp.func
@no_type_check
def linear_row(m: mat34, i: int):
    """Return a row of the matrix's linear part."""
    return wp.vec3(m[i, 0], m[i, 1], m[i, 2])


@wp.func
@no_type_check
def camera_position(pose: mat34):
    """Compute the camera's position in world coordinates."""
    return -(linear_row(pose, 0) * pose[0, 3] + linear_row(pose, 1) * pose[1, 3] + linear_row(pose, 2) * pose[2, 3])


@wp.func
@no_type_check
def transform_point(m: mat34, p: wp.vec3):
    """Transform a point by an affine matrix."""
    return wp.vec3(
        m[0, 0] * p[0] + m[0, 1] * p[1] + m[0, 2] * p[2] + m[0, 3],
        m[1, 0] * p[0] + m[1, 1] * p[1] + m[1, 2] * p[2] + m[1, 3],
        m[2, 0] * p[0] + m[2, 1] * p[1] + m[2, 2] * p[2] + m[2, 3],
    )
