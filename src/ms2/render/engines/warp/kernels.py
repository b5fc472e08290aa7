"""Warp kernels that transform instances and rasterise triangles, in launch order.

They are the same for CPU and CUDA. Results do not depend on the order of threads, which combine their values only by
maxima, sums of integers and bitwise or.
"""

from typing import no_type_check

import warp as wp

from ms2.render.engines.warp.structs import (
    OPTIONS,
    SHADOW_BLOCK,
    CameraData,
    DrawList,
    InstanceData,
    LabelBuffers,
    LightData,
    MeshData,
    TriangleSetup,
    camera_position,
    larger,
    linear_row,
    mat34,
    smaller,
    transform_point,
)

wp.set_module_options(OPTIONS)

SUN_DISTANCE = wp.constant(1024.0)
"""Metres from the camera, away from the sun, to the plane from which the shadow map's depths are measured: all > 0."""
MAX_HALF_WIDTH = wp.constant(8.0)
"""Maximum half width in samples of a shadow's penumbra of which every sample counts."""
ALL_BITS = wp.constant(wp.uint32(0xFFFFFFFF))

# --- shadow camera ---


@wp.kernel
@no_type_check
def fit_shadow_camera(
    cameras: CameraData, lights: LightData, width: int, shadow_size: int, distance: float, half_width: float,
    min_height: float,
):  # fmt: skip
    """Fit the shadow map's orthographic camera to the view frustum up to ``distance`` metres.

    The rows of ``lights.shadow_view`` give column, row, and depth towards the sun in metres.

    Args:
        cameras: Cameras of the scenes.
        lights: Lighting of the scenes.
        width: Samples of an image row.
        shadow_size: Samples along each side of the shadow map.
        distance: Distance ahead of the camera to cover in metres.
        half_width: Maximum distance to each side to cover in metres.
        min_height: Minimum height relative to the camera to cover in metres.
    """
    s = wp.tid()
    pose = cameras.pose[s]
    eye = camera_position(pose)
    right = linear_row(pose, 0)
    ahead = linear_row(pose, 2)
    up = -linear_row(pose, 1)
    sun = wp.normalize(lights.sun[s])
    lights.camera_position[s] = eye
    lights.sun_direction[s] = sun
    u = ahead - sun * wp.dot(sun, ahead)
    if wp.length(u) < 0.1:
        u = right - sun * wp.dot(sun, right)
    u = wp.normalize(u)
    v = wp.cross(sun, u)
    tangent = wp.max(cameras.centre[s][0], float(width) - cameras.centre[s][0]) / cameras.focal[s][0]
    low = wp.vec2(1.0e9, 1.0e9)
    high = wp.vec2(-1.0e9, -1.0e9)
    for corner in range(8):
        far = float(corner & 1) * distance
        across = wp.min(far * tangent, half_width) + 2.0
        if (corner & 2) != 0:
            across = -across
        height = min_height
        if (corner & 4) != 0:
            height = 6.0
        p = eye + ahead * far + right * across + up * height
        at = wp.vec2(wp.dot(u, p), wp.dot(v, p))
        low = wp.min(low, at)
        high = wp.max(high, at)
    a = float(shadow_size) / (high[0] - low[0])
    b = float(shadow_size) / (high[1] - low[1])
    # fmt: off
    lights.shadow_view[s] = mat34(
        u[0] * a, u[1] * a, u[2] * a, -low[0] * a,
        v[0] * b, v[1] * b, v[2] * b, -low[1] * b,
        sun[0], sun[1], sun[2], SUN_DISTANCE - wp.dot(sun, eye),
    )
    # fmt: on
    # a rectangle with the variance of 4 x 4 bilinear samples along the penumbra; without one, of a bilinear sample
    columns = lights.softness[s] * a
    rows = lights.softness[s] * b
    columns = wp.sqrt(0.9375 * columns * columns + 0.25)
    rows = wp.sqrt(0.9375 * rows * rows + 0.25)
    stride = 1.0 + wp.floor(wp.max(columns, rows) / MAX_HALF_WIDTH)
    most = wp.floor(float(shadow_size - 1) / stride) * 0.5
    columns = wp.min(columns / stride, most)
    rows = wp.min(rows / stride, most)
    lights.shadow_filter[s] = wp.vec4(columns, rows, stride, 1.0 / wp.min(a, b))


# --- instances ---


@wp.func
@no_type_check
def compose_affine(a: mat34, m: wp.mat44):
    """Compose two affine maps: m, then a."""
    out = mat34()
    for i in range(3):
        for j in range(4):
            out[i, j] = a[i, 0] * m[0, j] + a[i, 1] * m[1, j] + a[i, 2] * m[2, j]
        out[i, 3] = out[i, 3] + a[i, 3]
    return out


@wp.func
@no_type_check
def projection_matrix(cameras: CameraData, s: int):
    """Build the matrix from world coordinates to homogeneous samples."""
    f = cameras.focal[s]
    c = cameras.centre[s]
    p = cameras.pose[s]
    out = mat34()
    for j in range(4):
        out[0, j] = p[0, j] * f[0] + p[2, j] * c[0]
        out[1, j] = p[1, j] * f[1] + p[2, j] * c[1]
        out[2, j] = p[2, j]
    return out


@wp.func
@no_type_check
def clip_edge(inside: wp.vec3, outside: wp.vec3, near: float):
    """Intersect an edge with the near plane.

    Interpolation starts at the vertex in front, so that both triangles at the edge get exactly the same point.
    """
    t = (inside[2] - near) / (inside[2] - outside[2])
    at = inside + (outside - inside) * t
    return wp.vec3(at[0], at[1], near)


@wp.func
@no_type_check
def extend_box(extent: wp.vec4, p: wp.vec3):
    """Extend a box by a homogeneous vertex."""
    x = p[0] / p[2]
    y = p[1] / p[2]
    return wp.vec4(wp.min(extent[0], x), wp.min(extent[1], y), wp.max(extent[2], x), wp.max(extent[3], y))


@wp.kernel
@no_type_check
def transform_instances(
    meshes: MeshData, cameras: CameraData, lights: LightData, instances: InstanceData, labels: LabelBuffers,
    width: int, height: int, shadow_size: int, image_triangles: wp.array[wp.int32],
    shadow_triangles: wp.array[wp.int32],
):  # fmt: skip
    """Compute each instance's matrices, amodal box and numbers of triangles to draw.

    Args:
        meshes: Packed meshes.
        cameras: Cameras of the scenes.
        lights: Lighting of the scenes.
        instances: Instances; their matrices are written.
        labels: Label buffers; extents and windows are written.
        width: Samples of an image row.
        height: Rows of samples.
        shadow_size: Samples along each side of the shadow map, or 0.
        image_triangles: Number of triangles of each instance to draw to the image.
        shadow_triangles: Number of triangles of each instance to draw to the shadow map.
    """
    i = wp.tid()
    m = instances.mesh[i]
    image_triangles[i] = 0
    shadow_triangles[i] = 0
    labels.mask_words[i] = 0
    labels.extent[i] = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if m < 0:
        return
    s = i / instances.per_scene
    model = instances.model[i]
    image = compose_affine(projection_matrix(cameras, s), model)
    instances.image[i] = image
    # columns of the linear part; their cross products form the cofactor matrix, which transforms normals
    a = wp.vec3(model[0, 0], model[1, 0], model[2, 0])
    b = wp.vec3(model[0, 1], model[1, 1], model[2, 1])
    c = wp.vec3(model[0, 2], model[1, 2], model[2, 2])
    normal = wp.matrix_from_cols(wp.cross(b, c), wp.cross(c, a), wp.cross(a, b))
    if wp.dot(a, wp.cross(b, c)) < 0.0:
        normal = -normal
    instances.normal[i] = normal

    near = cameras.near
    first = meshes.mesh[m, 0]
    number = meshes.mesh[m, 1]
    crossing = int(0)
    ahead = int(0)
    extent = wp.vec4(1.0e9, 1.0e9, -1.0e9, -1.0e9)
    for k in range(number):
        p = transform_point(image, meshes.position[first + k])
        if p[2] > near:
            ahead = 1
            extent = extend_box(extent, p)
        else:
            crossing = 1
    if ahead == 1:
        if crossing == 1:  # the clipped part extends to where edges meet the near plane
            for k in range(meshes.mesh[m, 2], meshes.mesh[m, 2] + meshes.mesh[m, 3]):
                t = meshes.triangle[k]
                for e in range(3):
                    p = transform_point(image, meshes.position[t[e]])
                    q = transform_point(image, meshes.position[t[(e + 1) % 3]])
                    if p[2] > near and q[2] <= near:
                        extent = extend_box(extent, clip_edge(p, q, near))
                    elif q[2] > near and p[2] <= near:
                        extent = extend_box(extent, clip_edge(q, p, near))
        labels.extent[i] = extent
        x0 = wp.clamp(int(wp.clamp(extent[0], -1.0, 1.0e6)), 0, width)
        y0 = wp.clamp(int(wp.clamp(extent[1], -1.0, 1.0e6)), 0, height)
        x1 = wp.clamp(int(wp.clamp(extent[2], -1.0, 1.0e6)) + 1, 0, width)
        y1 = wp.clamp(int(wp.clamp(extent[3], -1.0, 1.0e6)) + 1, 0, height)
        if extent[2] > 0.0 and extent[3] > 0.0 and x0 < x1 and y0 < y1:
            image_triangles[i] = meshes.mesh[m, 3]
            labels.window[i] = wp.vec4i(x0, y0, x1, y1)
            if instances.labelled[i] != wp.uint8(0):
                labels.mask_words[i] = (x1 - x0 + 31) / 32 * (y1 - y0)

    view = compose_affine(lights.shadow_view[s], model)
    instances.shadow[i] = view
    if shadow_size > 0 and meshes.mesh[m, 4] == 1 and wp.length_sq(lights.sun_colour[s]) > 0.0:
        low = wp.vec2(1.0e9, 1.0e9)
        high = wp.vec2(-1.0e9, -1.0e9)
        for k in range(number):
            p = transform_point(view, meshes.position[first + k])
            at = wp.vec2(p[0], p[1])
            low = wp.min(low, at)
            high = wp.max(high, at)
        if high[0] > 0.0 and high[1] > 0.0 and low[0] < float(shadow_size) and low[1] < float(shadow_size):
            shadow_triangles[i] = meshes.mesh[m, 3]


# --- triangles ---


@wp.struct
@no_type_check
class SortedTriangle:
    """A projected triangle with its vertices sorted by row, and the plane of q = 1 / w over it.

    Edges are evaluated from their upper vertex down, so that triangles at one edge get the same result: each sample
    along it belongs to exactly one of them. Slopes are those of the long edge, from the first to the last vertex, and
    of the upper and the lower edge.
    """

    x0: wp.float32
    y0: wp.float32
    x1: wp.float32
    y1: wp.float32
    y2: wp.float32
    long_slope: wp.float32
    upper_slope: wp.float32
    lower_slope: wp.float32
    q: wp.float32
    qx: wp.float32
    qy: wp.float32
    q_min: wp.float32
    q_max: wp.float32


@wp.func
@no_type_check
def inverse_slope(a: wp.vec3, b: wp.vec3):
    """Compute dx/dy of the edge from a down to b; 0 for a horizontal edge."""
    if b[1] > a[1]:
        return (b[0] - a[0]) / (b[1] - a[1])
    return float(0.0)


@wp.func
@no_type_check
def sort_vertices(a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Sort vertices x, y, q by row, and compute slopes and the plane of q."""
    if b[1] < a[1]:
        swap = a
        a = b
        b = swap
    if c[1] < b[1]:
        swap = b
        b = c
        c = swap
        if b[1] < a[1]:
            swap = a
            a = b
            b = swap
    t = SortedTriangle()
    t.x0 = a[0]
    t.y0 = a[1]
    t.x1 = b[0]
    t.y1 = b[1]
    t.y2 = c[1]
    t.long_slope = inverse_slope(a, c)
    t.upper_slope = inverse_slope(a, b)
    t.lower_slope = inverse_slope(b, c)
    u = b - a
    v = c - a
    det = u[0] * v[1] - v[0] * u[1]
    t.q = a[2]
    if det != 0.0:
        t.qx = (u[2] * v[1] - v[2] * u[1]) / det
        t.qy = (v[2] * u[0] - u[2] * v[0]) / det
    t.q_min = smaller(a[2], smaller(b[2], c[2]))
    t.q_max = larger(a[2], larger(b[2], c[2]))
    return t


@wp.func
@no_type_check
def count_before(x: float, size: int):
    """Count the samples 0 ... size - 1 whose centres are less than x."""
    x = smaller(larger(0.0, x - 0.5), float(size))
    n = int(x)  # wp.ceil is a slow library call without machine-specific instructions
    return n + int(float(n) < x)


@wp.func
@no_type_check
def covers_sample(a: float, b: float, c: float, size: int):
    """Return whether any sample's centre lies between the minimum and the maximum of three values."""
    return count_before(smaller(a, smaller(b, c)), size) < count_before(larger(a, larger(b, c)), size)


@wp.func
@no_type_check
def row_span(t: SortedTriangle, y: int, width: int):
    """Compute the range of the triangle's samples in row y: the first, and one after the last."""
    at = float(y) + 0.5
    a = t.x0 + (at - t.y0) * t.long_slope
    b = t.x0 + (at - t.y0) * t.upper_slope
    if at >= t.y1:
        b = t.x1 + (at - t.y1) * t.lower_slope
    return wp.vec2i(count_before(smaller(a, b), width), count_before(larger(a, b), width))


# Warp's own loops over a row are not vectorised on a CPU; these are. Positive floats have the same order as their bits.
SPAN = """
    for (int x = 0; x < number; ++x) {
        float at = q + (float)x * qx;
        at = at > q_min ? at : q_min;
        at = at < q_max ? at : q_max;
        %s
    }
"""
STORE_KEY = """
    union { float real; unsigned int bits; } upper = { at };
    const long long key = ((long long)upper.bits << 32) | (long long)triangle_id;
    long long* stored = (long long*)nearest.data + first + x;
#if defined(__CUDA_ARCH__)
    atomicMax(stored, key);
#else
    *stored = key > *stored ? key : *stored;
#endif
"""
STORE_DEPTH = """
#if defined(__CUDA_ARCH__)
    atomicMax((int*)shadow_depth.data + first + x, __float_as_int(at));
#else
    float* stored = shadow_depth.data + first + x;
    *stored = at > *stored ? at : *stored;
#endif
"""


@wp.func_native(SPAN % STORE_KEY)
@no_type_check
def draw_span(
    nearest: wp.array[wp.uint64], first: int, number: int, q: float, qx: float, q_min: float, q_max: float,
    triangle_id: wp.uint32,
):  # fmt: skip
    """Keep the larger of a row's samples and those of a triangle: q at the first sample, and its change per sample."""
    ...


@wp.func_native(SPAN % STORE_DEPTH)
@no_type_check
def draw_depth_span(
    shadow_depth: wp.array[wp.float32], first: int, number: int, q: float, qx: float, q_min: float, q_max: float
):  # fmt: skip
    """Keep the larger of a shadow map's row and a triangle's depths, as `draw_span` does."""
    ...


@wp.func
@no_type_check
def mark_samples(labels: LabelBuffers, i: int, y: int, left: int, right: int):
    """Mark samples left ... right - 1 of row y as covered by instance i, and count the newly marked."""
    w = labels.window[i]
    if y < w[1] or y >= w[3]:
        return
    left = wp.max(left, w[0]) - w[0]
    right = wp.min(right, w[2]) - w[0]
    words = (w[2] - w[0] + 31) / 32
    start = labels.first_word[i] + (y - w[1]) * words
    news = int(0)
    while left < right:
        word = left / 32
        stop = wp.min(right, word * 32 + 32)
        bits = (ALL_BITS >> wp.uint32(32 - (stop - left))) << wp.uint32(left - word * 32)
        old = wp.atomic_or(labels.mask, start + word, bits)
        news += wp.bit_count(bits & ~old)
        left = stop
    if news > 0:
        wp.atomic_add(labels.covered, i, news)


@wp.func
@no_type_check
def set_up_triangle(
    meshes: MeshData, lights: LightData, instances: InstanceData, setup: TriangleSetup, k: int, i: int, t: wp.vec4i,
    a: wp.vec3, b: wp.vec3, c: wp.vec3, width: int, height: int,
):  # fmt: skip
    """Compute what shading needs of triangle k of instance i, with homogeneous vertices a, b and c.

    Relative to a point of the image, cross products of the vertices are perspective-correct barycentric coordinates
    times a common factor, and linear in the image's coordinates, also where vertices are behind the camera (Olano and
    Greer 1997). The normal is that of the visible side, in world coordinates.
    """
    x = 0.5 * float(width)
    y = 0.5 * float(height)
    if a[2] > 0.0 and b[2] > 0.0 and c[2] > 0.0:  # planes are most precise near their origin
        middle = (a / a[2] + b / b[2] + c / c[2]) / 3.0
        x = wp.clamp(middle[0], 0.0, float(width))
        y = wp.clamp(middle[1], 0.0, float(height))
    ax = a[0] - x * a[2]
    ay = a[1] - y * a[2]
    bx = b[0] - x * b[2]
    by = b[1] - y * b[2]
    cx = c[0] - x * c[2]
    cy = c[1] - y * c[2]
    p = meshes.position[t[0]]
    face = instances.normal[i] * wp.cross(meshes.position[t[1]] - p, meshes.position[t[2]] - p)
    ray = wp.transform_point(instances.model[i], p) - lights.camera_position[i / instances.per_scene]
    if wp.dot(face, ray) > 0.0:
        face = -face
    casts = float(meshes.mesh[instances.mesh[i], 4])
    setup.corners[k] = t
    setup.planes[4 * k] = wp.vec4(by * c[2] - b[2] * cy, b[2] * cx - bx * c[2], bx * cy - by * cx, x)
    setup.planes[4 * k + 1] = wp.vec4(cy * a[2] - c[2] * ay, c[2] * ax - cx * a[2], cx * ay - cy * ax, y)
    setup.planes[4 * k + 2] = wp.vec4(ay * b[2] - a[2] * by, a[2] * bx - ax * b[2], ax * by - ay * bx, casts)
    setup.planes[4 * k + 3] = wp.vec4(face[0], face[1], face[2], 0.0)


@wp.func
@no_type_check
def rasterise_triangle(
    a: wp.vec3, b: wp.vec3, c: wp.vec3, width: int, height: int, start: int, triangle_id: wp.uint32, i: int,
    thread: int, threads: int, labelled: bool, labels: LabelBuffers, nearest: wp.array[wp.uint64],
):  # fmt: skip
    """Rasterise a triangle of homogeneous vertices in front of the camera; each sample keeps the largest (q, id).

    Returns False if it covers no sample; true if it may cover one.

    Thread ``thread`` of ``threads`` rasterises every ``threads``-th row. ``start`` is the scene's first sample.
    """
    a = wp.vec3(a[0] / a[2], a[1] / a[2], 1.0 / a[2])
    b = wp.vec3(b[0] / b[2], b[1] / b[2], 1.0 / b[2])
    c = wp.vec3(c[0] / c[2], c[1] / c[2], 1.0 / c[2])
    # most triangles of detailed meshes cover no sample
    if not covers_sample(a[1], b[1], c[1], height):
        return False
    if not covers_sample(a[0], b[0], c[0], width):
        return False
    t = sort_vertices(a, b, c)
    y = count_before(t.y0, height) + thread
    last = count_before(t.y2, height)
    while y < last:
        ends = row_span(t, y, width)
        if ends[0] < ends[1]:
            q = t.q + (float(ends[0]) + 0.5 - t.x0) * t.qx + (float(y) + 0.5 - t.y0) * t.qy
            draw_span(nearest, start + y * width + ends[0], ends[1] - ends[0], q, t.qx, t.q_min, t.q_max, triangle_id)
            if labelled:
                mark_samples(labels, i, y, ends[0], ends[1])
        y += threads
    return True


@wp.kernel
@no_type_check
def draw_triangles(
    meshes: MeshData, lights: LightData, instances: InstanceData, draw_list: DrawList, setup: TriangleSetup,
    labels: LabelBuffers, width: int, height: int, near: float, threads: int, nearest: wp.array[wp.uint64],
):  # fmt: skip
    """Rasterise the image's triangles to a visibility buffer.

    The upper 32 bits of a sample are q = 1 / w as a float, the lower 32 bits the id of the nearest triangle; 0 for
    none. Ids are indices in the draw list, counted down, so that of equally near triangles the first is kept.

    Args:
        meshes: Packed meshes.
        lights: Lighting of the scenes.
        instances: Instances with their matrices.
        draw_list: Triangles to draw.
        setup: Triangles to shade; written for those that cover samples.
        labels: Label buffers; masks and counts of covered samples are written.
        width: Samples of a row.
        height: Rows of samples.
        near: Distance of the near plane in metres.
        threads: Threads per triangle, which share its rows.
        nearest: Visibility buffer of all scenes.
    """
    k, thread = wp.tid()
    i = draw_list.instance[k]
    m = instances.mesh[i]
    t = meshes.triangle[meshes.mesh[m, 2] + k - draw_list.first_triangle[i]]
    image = instances.image[i]
    a = transform_point(image, meshes.position[t[0]])
    b = transform_point(image, meshes.position[t[1]])
    c = transform_point(image, meshes.position[t[2]])
    ahead = int(a[2] > near) + int(b[2] > near) + int(c[2] > near)
    if ahead == 0:
        return
    start = i / instances.per_scene * (width * height)
    triangle_id = ALL_BITS - wp.uint32(k)
    labelled = instances.labelled[i] != wp.uint8(0)
    corner0 = a
    corner1 = b
    corner2 = c
    covers = bool(False)
    if ahead < 3:
        # rotate until the vertex that is alone on its side of the near plane comes first
        alone = ahead == 1
        if (b[2] > near) == alone and (a[2] > near) != alone:
            swap = a
            a = b
            b = c
            c = swap
        elif (c[2] > near) == alone and (a[2] > near) != alone:
            swap = a
            a = c
            c = b
            b = swap
        if alone:
            b = clip_edge(a, b, near)
            c = clip_edge(a, c, near)
        else:
            second = clip_edge(c, a, near)
            a = clip_edge(b, a, near)
            covers = rasterise_triangle(
                a, c, second, width, height, start, triangle_id, i, thread, threads, labelled, labels, nearest
            )
    if rasterise_triangle(
        a, b, c, width, height, start, triangle_id, i, thread, threads, labelled, labels, nearest
    ):  # fmt: skip
        covers = True
    if covers and thread == 0:
        set_up_triangle(meshes, lights, instances, setup, k, i, t, corner0, corner1, corner2, width, height)


@wp.kernel
@no_type_check
def clear_shadow_maps(shadow_size: int, shadow_depth: wp.array[wp.float32], shadow_top: wp.array[wp.float32]):
    """Clear the blocks of the shadow maps that something was drawn to, a third of them.

    Args:
        shadow_size: Samples along each side of a shadow map.
        shadow_depth: Shadow maps of all scenes.
        shadow_top: Upper bound of the depths in each block of samples.
    """
    block = wp.tid()
    if shadow_top[block] > 0.0:
        shadow_top[block] = 0.0
        blocks = (shadow_size + SHADOW_BLOCK - 1) / SHADOW_BLOCK
        row = block / blocks
        left = (block - row * blocks) * SHADOW_BLOCK
        scene = row / blocks
        top = (row - scene * blocks) * SHADOW_BLOCK
        y = int(top)
        while y < wp.min(top + SHADOW_BLOCK, shadow_size):
            x = int(left)
            while x < wp.min(left + SHADOW_BLOCK, shadow_size):
                shadow_depth[(scene * shadow_size + y) * shadow_size + x] = 0.0
                x += 1
            y += 1


@wp.kernel
@no_type_check
def draw_shadow_map(
    meshes: MeshData,
    instances: InstanceData,
    draw_list: DrawList,
    shadow_size: int,
    threads: int,
    shadow_depth: wp.array[wp.float32],
    shadow_top: wp.array[wp.float32],
):
    """Rasterise the shadow maps' triangles; each sample keeps the depth of the surface nearest to the sun.

    Args:
        meshes: Packed meshes.
        instances: Instances with their matrices.
        draw_list: Triangles to draw.
        shadow_size: Samples along each side of a shadow map.
        threads: Threads per triangle, which share its rows.
        shadow_depth: Shadow maps of all scenes.
        shadow_top: Upper bound of the depths in each block of samples.
    """
    k, thread = wp.tid()
    i = draw_list.instance[k]
    corners = meshes.triangle[meshes.mesh[instances.mesh[i], 2] + k - draw_list.first_triangle[i]]
    view = instances.shadow[i]
    a = transform_point(view, meshes.position[corners[0]])
    b = transform_point(view, meshes.position[corners[1]])
    c = transform_point(view, meshes.position[corners[2]])
    if not covers_sample(a[1], b[1], c[1], shadow_size):
        return
    if not covers_sample(a[0], b[0], c[0], shadow_size):
        return
    t = sort_vertices(a, b, c)
    t.q_min = larger(0.0, t.q_min)  # negative floats do not have the order of their bits
    t.q_max = larger(0.0, t.q_max)
    scene = i / instances.per_scene
    start = scene * (shadow_size * shadow_size)
    blocks = (shadow_size + SHADOW_BLOCK - 1) / SHADOW_BLOCK
    y = count_before(t.y0, shadow_size) + thread
    last = count_before(t.y2, shadow_size)
    left = int(shadow_size)
    right = int(0)
    top = float(0.0)
    while y < last:
        ends = row_span(t, y, shadow_size)
        if ends[0] < ends[1]:
            q = t.q + (float(ends[0]) + 0.5 - t.x0) * t.qx + (float(y) + 0.5 - t.y0) * t.qy
            number = ends[1] - ends[0]
            draw_depth_span(shadow_depth, start + y * shadow_size + ends[0], number, q, t.qx, t.q_min, t.q_max)
            left = wp.min(left, ends[0])
            right = wp.max(right, ends[1])
            top = larger(top, larger(q, q + float(number - 1) * t.qx))
        block = y / SHADOW_BLOCK
        y += threads
        if left < right and (y >= last or y / SHADOW_BLOCK != block):
            left = left / SHADOW_BLOCK
            number = (right - 1) / SHADOW_BLOCK - left + 1
            draw_depth_span(shadow_top, (scene * blocks + block) * blocks + left, number, top, 0.0, t.q_min, t.q_max)
            left = shadow_size
            right = 0
            top = 0.0
