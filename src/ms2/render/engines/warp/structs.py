"""What the rasteriser's kernels are given, and the little that all of them do with it.

Coordinates of a picture are counted in samples from its left and upper edges; sample 0 has its centre at 0.5. A vertex
on its way there is homogeneous: (x w, y w, w), where w is the distance along the camera's axis in metres. All distances
are kept as their reciprocal q = 1 / w, which is linear on the picture.
"""

from typing import Any, no_type_check

import warp as wp

# No backward pass: it would double the time to compile. No instructions of this very machine either: machines may
# share a cache, and their pixels be compared. Inlining spares copies of whole structs at each call, an eighth of the
# time.
OPTIONS: dict[str, Any] = {"enable_backward": False, "cpu_compiler_flags": "-mllvm=-inline-threshold=9000"}
"""For every module of kernels, which Warp compiles by itself."""

mat34 = wp.types.matrix(shape=(3, 4), dtype=wp.float32)

LOW_HALF = wp.constant(wp.uint64(0xFFFFFFFF))


@wp.struct
@no_type_check
class Library:
    """What `meshes.Arrays` describes."""

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
class Cameras:
    """Cameras of the scenes: focal lengths and centres in samples."""

    focal: wp.array[wp.vec2]
    centre: wp.array[wp.vec2]
    pose: wp.array[mat34]
    near: wp.float32


@wp.struct
@no_type_check
class Lights:
    """What `scenes.Environment` describes; for each scene the sun's view, the camera's place, the sun's direction."""

    sun: wp.array[wp.vec3]
    sun_colour: wp.array[wp.vec3]
    ambient: wp.array[wp.vec3]
    bounce: wp.array[wp.vec3]
    fog: wp.array[wp.float32]
    fog_colour: wp.array[wp.vec3]
    horizon: wp.array[wp.vec3]
    zenith: wp.array[wp.vec3]
    softness: wp.array[wp.float32]
    view: wp.array[mat34]
    eye: wp.array[wp.vec3]
    to_sun: wp.array[wp.vec3]


@wp.struct
@no_type_check
class Instances:
    """The b x n places for instances, one after another."""

    number: wp.int32
    mesh: wp.array[wp.int32]
    model: wp.array[wp.mat44]
    colour: wp.array[wp.vec3]
    labelled: wp.array[wp.uint8]
    image: wp.array[mat34]
    sun: wp.array[mat34]
    normal: wp.array[wp.mat33]


@wp.struct
@no_type_check
class Listing:
    """Triangles to draw: the instance of each, and the first place of each instance's."""

    instance: wp.array[wp.int32]
    first: wp.array[wp.int32]


@wp.struct
@no_type_check
class Labels:
    """What is counted of each instance; the window is where it may be seen, x0, y0, x1, y1 in samples."""

    extent: wp.array[wp.vec4]
    window: wp.array[wp.vec4i]
    words: wp.array[wp.int32]
    first: wp.array[wp.int32]
    mask: wp.array[wp.uint32]
    alone: wp.array[wp.int32]
    seen: wp.array[wp.int32]
    box: wp.array2d[wp.int32]


@wp.func
@no_type_check
def row(m: mat34, i: int):
    """The linear part of a row."""
    return wp.vec3(m[i, 0], m[i, 1], m[i, 2])


@wp.func
@no_type_check
def eye_of(pose: mat34):
    """Where a camera stands in the world."""
    return -(row(pose, 0) * pose[0, 3] + row(pose, 1) * pose[1, 3] + row(pose, 2) * pose[2, 3])


@wp.func
@no_type_check
def affine(m: mat34, p: wp.vec3):
    """A place, moved by a matrix."""
    return wp.vec3(
        m[0, 0] * p[0] + m[0, 1] * p[1] + m[0, 2] * p[2] + m[0, 3],
        m[1, 0] * p[0] + m[1, 1] * p[1] + m[1, 2] * p[2] + m[1, 3],
        m[2, 0] * p[0] + m[2, 1] * p[1] + m[2, 2] * p[2] + m[2, 3],
    )
