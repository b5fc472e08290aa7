"""Kernels that place instances and draw triangles; the engine launches them in the order in which they stand here.

They are the same for CPUs and CUDA, and nothing depends on the order of threads: these meet only in maxima, sums of
integers and bits that are set.
"""

from typing import no_type_check

import warp as wp

from ms2.render.engines.warp.structs import (
    LOW_HALF,
    OPTIONS,
    Cameras,
    Instances,
    Labels,
    Library,
    Lights,
    Listing,
    affine,
    eye_of,
    mat34,
    row,
)

wp.set_module_options(OPTIONS)

SUN_FAR = wp.constant(1024.0)
"""Metres to a plane towards the sun from which depths in the shadow map are measured, so that they are positive."""
ALL_BITS = wp.constant(wp.uint32(0xFFFFFFFF))

# --- the sun's view ---


@wp.kernel
@no_type_check
def look_from_sun(cameras: Cameras, lights: Lights, width: int, size: int, distance: float, side: float, drop: float):
    """Fit a square picture of the sun's view to what the camera sees of the next ``distance`` metres.

    Rows give column, row, and the depth towards the sun in metres.
    """
    s = wp.tid()
    pose = cameras.pose[s]
    eye = eye_of(pose)
    right = row(pose, 0)
    ahead = row(pose, 2)
    up = -row(pose, 1)
    sun = wp.normalize(lights.sun[s])
    lights.eye[s] = eye
    lights.to_sun[s] = sun
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
        across = wp.min(far * tangent, side) + 2.0
        if (corner & 2) != 0:
            across = -across
        height = drop
        if (corner & 4) != 0:
            height = 6.0
        p = eye + ahead * far + right * across + up * height
        at = wp.vec2(wp.dot(u, p), wp.dot(v, p))
        low = wp.min(low, at)
        high = wp.max(high, at)
    a = float(size) / (high[0] - low[0])
    b = float(size) / (high[1] - low[1])
    # fmt: off
    lights.view[s] = mat34(
        u[0] * a, u[1] * a, u[2] * a, -low[0] * a,
        v[0] * b, v[1] * b, v[2] * b, -low[1] * b,
        sun[0], sun[1], sun[2], SUN_FAR - wp.dot(sun, eye),
    )
    # fmt: on


# --- instances ---


@wp.func
@no_type_check
def times(a: mat34, m: wp.mat44):
    """First m, then a."""
    out = mat34()
    for i in range(3):
        for j in range(4):
            out[i, j] = a[i, 0] * m[0, j] + a[i, 1] * m[1, j] + a[i, 2] * m[2, j]
        out[i, 3] = out[i, 3] + a[i, 3]
    return out


@wp.func
@no_type_check
def to_image(cameras: Cameras, s: int):
    """From the world to homogeneous samples."""
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
def toward(inside: wp.vec3, outside: wp.vec3, near: float):
    """Where the edge between two vertices meets the near plane.

    From the inner one, so that both triangles at the edge find the very same place.
    """
    t = (inside[2] - near) / (inside[2] - outside[2])
    at = inside + (outside - inside) * t
    return wp.vec3(at[0], at[1], near)


@wp.func
@no_type_check
def grown(extent: wp.vec4, p: wp.vec3):
    """A box with a homogeneous vertex in it."""
    x = p[0] / p[2]
    y = p[1] / p[2]
    return wp.vec4(wp.min(extent[0], x), wp.min(extent[1], y), wp.max(extent[2], x), wp.max(extent[3], y))


@wp.kernel
@no_type_check
def place(
    library: Library, cameras: Cameras, lights: Lights, instances: Instances, labels: Labels,
    width: int, height: int, size: int, drawn: wp.array[wp.int32], shading: wp.array[wp.int32],
):  # fmt: skip
    """Matrices of each instance, the box around it, and how many of its triangles each picture has to draw.

    Args:
        width: Samples of a row of the image.
        height: Rows of samples.
        size: Side of the shadow map, or 0.
        drawn: Triangles for the image.
        shading: Triangles for the shadow map.
    """
    i = wp.tid()
    m = instances.mesh[i]
    drawn[i] = 0
    shading[i] = 0
    labels.words[i] = 0
    labels.extent[i] = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if m < 0:
        return
    s = i / instances.number
    model = instances.model[i]
    image = times(to_image(cameras, s), model)
    instances.image[i] = image
    # columns of the linear part; their cross products are the matrix that keeps normals upright
    a = wp.vec3(model[0, 0], model[1, 0], model[2, 0])
    b = wp.vec3(model[0, 1], model[1, 1], model[2, 1])
    c = wp.vec3(model[0, 2], model[1, 2], model[2, 2])
    normal = wp.matrix_from_cols(wp.cross(b, c), wp.cross(c, a), wp.cross(a, b))
    if wp.dot(a, wp.cross(b, c)) < 0.0:
        normal = -normal
    instances.normal[i] = normal

    near = cameras.near
    first = library.mesh[m, 0]
    number = library.mesh[m, 1]
    crossing = int(0)
    ahead = int(0)
    extent = wp.vec4(1.0e9, 1.0e9, -1.0e9, -1.0e9)
    for k in range(number):
        p = affine(image, library.position[first + k])
        if p[2] > near:
            ahead = 1
            extent = grown(extent, p)
        else:
            crossing = 1
    if ahead == 1:
        if crossing == 1:  # what the near plane cuts off reaches as far as the cuts do
            for k in range(library.mesh[m, 2], library.mesh[m, 2] + library.mesh[m, 3]):
                t = library.triangle[k]
                for e in range(3):
                    p = affine(image, library.position[t[e]])
                    q = affine(image, library.position[t[(e + 1) % 3]])
                    if p[2] > near and q[2] <= near:
                        extent = grown(extent, toward(p, q, near))
                    elif q[2] > near and p[2] <= near:
                        extent = grown(extent, toward(q, p, near))
        labels.extent[i] = extent
        x0 = wp.clamp(int(wp.clamp(extent[0], -1.0, 1.0e6)), 0, width)
        y0 = wp.clamp(int(wp.clamp(extent[1], -1.0, 1.0e6)), 0, height)
        x1 = wp.clamp(int(wp.clamp(extent[2], -1.0, 1.0e6)) + 1, 0, width)
        y1 = wp.clamp(int(wp.clamp(extent[3], -1.0, 1.0e6)) + 1, 0, height)
        if extent[2] > 0.0 and extent[3] > 0.0 and x0 < x1 and y0 < y1:
            drawn[i] = library.mesh[m, 3]
            labels.window[i] = wp.vec4i(x0, y0, x1, y1)
            if instances.labelled[i] != wp.uint8(0):
                labels.words[i] = (x1 - x0 + 31) / 32 * (y1 - y0)

    view = times(lights.view[s], model)
    instances.sun[i] = view
    if size > 0 and library.mesh[m, 4] == 1 and wp.length_sq(lights.sun_colour[s]) > 0.0:
        low = wp.vec2(1.0e9, 1.0e9)
        high = wp.vec2(-1.0e9, -1.0e9)
        for k in range(number):
            p = affine(view, library.position[first + k])
            at = wp.vec2(p[0], p[1])
            low = wp.min(low, at)
            high = wp.max(high, at)
        if high[0] > 0.0 and high[1] > 0.0 and low[0] < float(size) and low[1] < float(size):
            shading[i] = library.mesh[m, 3]


# --- triangles ---


@wp.struct
@no_type_check
class Sorted:
    """A triangle on a picture, its vertices from top to bottom, and q as a plane over it.

    Rows are cut by edges that run from their upper vertex down, so that triangles at one edge are cut alike: no sample
    falls between them, and none belongs to both.
    """

    x0: wp.float32
    y0: wp.float32
    x1: wp.float32
    y1: wp.float32
    y2: wp.float32
    whole: wp.float32
    upper: wp.float32
    lower: wp.float32
    q: wp.float32
    qx: wp.float32
    qy: wp.float32
    least: wp.float32
    most: wp.float32


@wp.func
@no_type_check
def slope(a: wp.vec3, b: wp.vec3):
    """Columns for each row on the edge from a down to b; of a level edge, which cuts no row, 0."""
    if b[1] > a[1]:
        return (b[0] - a[0]) / (b[1] - a[1])
    return float(0.0)


@wp.func
@no_type_check
def sort(a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Vertices x, y, q in the order of their rows."""
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
    t = Sorted()
    t.x0 = a[0]
    t.y0 = a[1]
    t.x1 = b[0]
    t.y1 = b[1]
    t.y2 = c[1]
    t.whole = slope(a, c)
    t.upper = slope(a, b)
    t.lower = slope(b, c)
    u = b - a
    v = c - a
    det = u[0] * v[1] - v[0] * u[1]
    t.q = a[2]
    if det != 0.0:
        t.qx = (u[2] * v[1] - v[2] * u[1]) / det
        t.qy = (v[2] * u[0] - u[2] * v[0]) / det
    t.least = wp.min(a[2], wp.min(b[2], c[2]))
    t.most = wp.max(a[2], wp.max(b[2], c[2]))
    return t


@wp.func
@no_type_check
def before(x: float, size: int):
    """How many of the samples 0 ... size - 1 have their centre before x."""
    x = wp.clamp(x - 0.5, 0.0, float(size))
    n = int(x)  # wp.ceil is a call into a library where there are no newer instructions
    if float(n) < x:
        n += 1
    return n


@wp.func
@no_type_check
def between(a: float, b: float, c: float, size: int):
    """Whether any sample's centre lies between the least and the greatest of three."""
    return before(wp.min(a, wp.min(b, c)), size) < before(wp.max(a, wp.max(b, c)), size)


@wp.func
@no_type_check
def span(t: Sorted, y: int, width: int):
    """First sample of row y in the triangle, and the first after it."""
    at = float(y) + 0.5
    a = t.x0 + (at - t.y0) * t.whole
    b = t.x0 + (at - t.y0) * t.upper
    if at >= t.y1:
        b = t.x1 + (at - t.y1) * t.lower
    return wp.vec2i(before(wp.min(a, b), width), before(wp.max(a, b), width))


@wp.func
@no_type_check
def mark(labels: Labels, i: int, y: int, left: int, right: int):
    """Set the bits of a row's samples, and count those that were not set."""
    w = labels.window[i]
    if y < w[1] or y >= w[3]:
        return
    left = wp.max(left, w[0]) - w[0]
    right = wp.min(right, w[2]) - w[0]
    words = (w[2] - w[0] + 31) / 32
    start = labels.first[i] + (y - w[1]) * words
    news = int(0)
    while left < right:
        word = left / 32
        stop = wp.min(right, word * 32 + 32)
        bits = (ALL_BITS >> wp.uint32(32 - (stop - left))) << wp.uint32(left - word * 32)
        old = wp.atomic_or(labels.mask, start + word, bits)
        news += wp.bit_count(bits & ~old)
        left = stop
    if news > 0:
        wp.atomic_add(labels.alone, i, news)


@wp.func
@no_type_check
def fill(
    a: wp.vec3, b: wp.vec3, c: wp.vec3, width: int, height: int, start: int, name: wp.uint64, i: int, part: int,
    parts: int, labelled: bool, labels: Labels, nearest: wp.array[wp.uint64],
):  # fmt: skip
    """Draw a triangle of homogeneous vertices before the camera: the greatest q and name stay at each sample."""
    a = wp.vec3(a[0] / a[2], a[1] / a[2], 1.0 / a[2])
    b = wp.vec3(b[0] / b[2], b[1] / b[2], 1.0 / b[2])
    c = wp.vec3(c[0] / c[2], c[1] / c[2], 1.0 / c[2])
    # most triangles of detailed meshes are this small, or outside
    if not between(a[1], b[1], c[1], height):
        return
    if not between(a[0], b[0], c[0], width):
        return
    t = sort(a, b, c)
    for y in range(before(t.y0, height) + part, before(t.y2, height), parts):
        ends = span(t, y, width)
        if ends[0] < ends[1]:
            q = t.q + (float(ends[0]) + 0.5 - t.x0) * t.qx + (float(y) + 0.5 - t.y0) * t.qy
            base = start + y * width
            for x in range(ends[0], ends[1]):
                here = wp.clamp(q + float(x - ends[0]) * t.qx, t.least, t.most)
                # floats above 0 have the order of their bits
                key = (wp.uint64(wp.cast(here, wp.uint32)) << wp.uint64(32)) | name
                wp.atomic_max(nearest, base + x, key)
            if labelled:
                mark(labels, i, y, ends[0], ends[1])


@wp.kernel
@no_type_check
def draw(
    library: Library, instances: Instances, listing: Listing, labels: Labels, width: int, height: int, near: float,
    parts: int, nearest: wp.array[wp.uint64],
):  # fmt: skip
    """Draw the image's triangles. A sample keeps 1 / w, and below it the name of the nearest triangle, or 0.

    A name counts down, so that of two triangles that are equally far the first one stays.

    Args:
        width: Samples of a row.
        height: Rows.
        near: Distance of the plane before which nothing is seen, in metres.
        parts: Threads that share the rows of each triangle.
        nearest: The samples of all scenes.
    """
    k, part = wp.tid()
    i = listing.instance[k]
    m = instances.mesh[i]
    t = library.triangle[library.mesh[m, 2] + k - listing.first[i]]
    image = instances.image[i]
    a = affine(image, library.position[t[0]])
    b = affine(image, library.position[t[1]])
    c = affine(image, library.position[t[2]])
    ahead = int(a[2] > near) + int(b[2] > near) + int(c[2] > near)
    if ahead == 0:
        return
    start = i / instances.number * (width * height)
    name = LOW_HALF - wp.uint64(k)
    labelled = instances.labelled[i] != wp.uint8(0)
    if ahead < 3:
        # turn it until the vertex that is alone on its side of the near plane comes first
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
            b = toward(a, b, near)
            c = toward(a, c, near)
        else:
            second = toward(c, a, near)
            a = toward(b, a, near)
            fill(a, c, second, width, height, start, name, i, part, parts, labelled, labels, nearest)
    fill(a, b, c, width, height, start, name, i, part, parts, labelled, labels, nearest)


@wp.kernel
@no_type_check
def draw_from_sun(
    library: Library, instances: Instances, listing: Listing, size: int, parts: int, highest: wp.array[wp.uint32]
):
    """Draw the shadow maps' triangles: each sample keeps the depth of what is nearest to the sun, as a float's bits."""
    k, part = wp.tid()
    i = listing.instance[k]
    corners = library.triangle[library.mesh[instances.mesh[i], 2] + k - listing.first[i]]
    view = instances.sun[i]
    a = affine(view, library.position[corners[0]])
    b = affine(view, library.position[corners[1]])
    c = affine(view, library.position[corners[2]])
    if not between(a[1], b[1], c[1], size):
        return
    if not between(a[0], b[0], c[0], size):
        return
    t = sort(a, b, c)
    t.least = wp.max(t.least, 0.0)  # below, floats have not the order of their bits
    t.most = wp.max(t.most, 0.0)
    start = i / instances.number * (size * size)
    for y in range(before(t.y0, size) + part, before(t.y2, size), parts):
        ends = span(t, y, size)
        if ends[0] < ends[1]:
            q = t.q + (float(ends[0]) + 0.5 - t.x0) * t.qx + (float(y) + 0.5 - t.y0) * t.qy
            base = start + y * size
            for x in range(ends[0], ends[1]):
                here = wp.clamp(q + float(x - ends[0]) * t.qx, t.least, t.most)
                wp.atomic_max(highest, base + x, wp.cast(here, wp.uint32))
