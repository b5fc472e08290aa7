"""The rasteriser's kernels, the same for CPUs and CUDA; the engine launches them in the order in which they stand here.

Coordinates of a picture are counted in samples from its left and upper edges; sample 0 has its centre at 0.5. A vertex
on its way there is homogeneous: (x w, y w, w), where w is the distance along the camera's axis in metres. All distances
are kept as their reciprocal q = 1 / w, which is linear on the picture.

Nothing depends on the order of threads: they meet only in maxima, sums of integers and bits that are set.
"""

from typing import no_type_check

import warp as wp

# No backward pass: it would double the time to compile. No instructions of this very machine either: machines may
# share a cache, and their pixels be compared. Inlining spares copies of whole structs at each call, an eighth of the
# time.
wp.set_module_options({"enable_backward": False, "cpu_compiler_flags": "-mllvm=-inline-threshold=9000"})

mat34 = wp.types.matrix(shape=(3, 4), dtype=wp.float32)

LEVELS = wp.constant(11)
"""Mip levels of a texture, as `meshes.LEVELS`."""
MOST_TAPS = wp.constant(4)
"""Samples along the longer side of a pixel's footprint on a texture: what keeps lane markings sharp far ahead."""
SUN_FAR = wp.constant(1024.0)
"""Metres to a plane towards the sun from which depths in the shadow map are measured, so that they are positive."""
NOBODY = wp.constant(-1)
LOW_HALF = wp.constant(wp.uint64(0xFFFFFFFF))
ALL_BITS = wp.constant(wp.uint32(0xFFFFFFFF))


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


# --- the sun's view ---


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


# --- light ---


@wp.func
@no_type_check
def bilinear(texels: wp.array[wp.uint32], start: int, wide: int, high: int, u: float, v: float):
    """Red, green and blue between four texels, 0 to 65280; pictures repeat, and their sides are powers of two.

    Red and blue are weighed at once, 16 bits apart: weights add up to 256.
    """
    x = u * float(1 << wide) - 0.5
    y = v * float(1 << high) - 0.5
    i = whole(x)
    j = whole(y)
    a = wp.uint32((x - float(i)) * 256.0)
    b = wp.uint32((y - float(j)) * 256.0)
    both = (a * b) >> wp.uint32(8)
    across = (1 << wide) - 1
    along = (1 << high) - 1
    low = start + ((j & along) << wide)
    top = start + (((j + 1) & along) << wide)
    c00 = texels[low + (i & across)]
    c10 = texels[low + ((i + 1) & across)]
    c01 = texels[top + (i & across)]
    c11 = texels[top + ((i + 1) & across)]
    w00 = wp.uint32(256) - a - b + both
    w10 = a - both
    w01 = b - both
    m = wp.uint32(0xFF00FF)
    ends = (c00 & m) * w00 + (c10 & m) * w10 + (c01 & m) * w01 + (c11 & m) * both
    m = wp.uint32(0xFF00)
    middle = (c00 & m) * w00 + (c10 & m) * w10 + (c01 & m) * w01 + (c11 & m) * both
    return wp.vec3(float(ends & wp.uint32(0xFFFF)), float(middle >> wp.uint32(8)), float(ends >> wp.uint32(16)))


@wp.func
@no_type_check
def whole(x: float):
    """The next integer below, without a call into a library."""
    n = int(x)
    if float(n) > x:
        n -= 1
    return n


@wp.func
@no_type_check
def level_of(texels: float):
    """Binary logarithm of a footprint, its mantissa taken as linear; the same on every machine."""
    bits = wp.cast(wp.max(texels, 1.0), wp.int32)
    return float((bits >> 23) - 127) + float(bits & 0x7FFFFF) / 8388608.0


@wp.func
@no_type_check
def textured(library: Library, picture: int, at: wp.vec2, across: wp.vec2, along: wp.vec2):
    """Light of a texture under a pixel that reaches ``across`` and ``along`` on it, in linear light."""
    sides = wp.vec2(float(1 << library.texture[picture, 0]), float(1 << library.texture[picture, 1]))
    longer = wp.length(wp.cw_mul(across, sides))
    shorter = wp.length(wp.cw_mul(along, sides))
    step = across
    if shorter > longer:
        step = along
        swap = longer
        longer = shorter
        shorter = swap
    taps = int(1)
    if longer > 1.0:
        taps = wp.clamp(int(longer / wp.max(shorter, 1.0) + 0.5), 1, MOST_TAPS)
    level = level_of(wp.max(longer / float(taps), shorter))
    base = wp.min(int(level), LEVELS - 1)
    # only between levels are both looked at, in the middle three fifths of the way
    blend = wp.clamp((level - float(base) - 0.2) / 0.6, 0.0, 1.0)
    total = wp.vec3(0.0, 0.0, 0.0)
    for n in range(2):
        weight = blend
        if n == 0:
            weight = 1.0 - blend
        if weight > 0.0:
            here = wp.min(base + n, LEVELS - 1)
            start = library.texture[picture, 2 + here]
            wide = wp.max(library.texture[picture, 0] - here, 0)
            high = wp.max(library.texture[picture, 1] - here, 0)
            for k in range(taps):
                p = at + step * ((float(k) + 0.5) / float(taps) - 0.5)
                total += bilinear(library.texel, start, wide, high, p[0], p[1]) * weight
    total = total / (65280.0 * float(taps))
    return wp.cw_mul(total, total)


@wp.func
@no_type_check
def unhidden(highest: wp.array[wp.uint32], start: int, size: int, x: float, y: float, depth: wp.uint32):
    """Share of light at a place of the sun's view, from the four samples around it."""
    x = wp.clamp(x, 0.0, float(size - 2))
    y = wp.clamp(y, 0.0, float(size - 2))
    i = int(x)
    j = int(y)
    x -= float(i)
    y -= float(j)
    k = start + j * size + i
    light = float(0.0)
    if highest[k] <= depth:
        light += (1.0 - x) * (1.0 - y)
    if highest[k + 1] <= depth:
        light += x * (1.0 - y)
    if highest[k + size] <= depth:
        light += (1.0 - x) * y
    if highest[k + size + 1] <= depth:
        light += x * y
    return light


@wp.func
@no_type_check
def lit(highest: wp.array[wp.uint32], start: int, size: int, p: wp.vec3, soft: wp.vec2):
    """Share of the sun's light that reaches a place of the sun's view.

    Towards the map's edges shadows fade, so that none ends at a line.

    Args:
        highest: The shadow maps.
        start: Where the scene's begins.
        size: Its side.
        p: Column, row, depth.
        soft: Columns and rows from a shadow's edge to where it ends.
    """
    x = p[0] - 0.5
    y = p[1] - 0.5
    margin = wp.min(wp.min(x, y), float(size - 2) - wp.max(x, y))
    if not margin > 0.0:
        return float(1.0)
    fade = wp.min(margin / (0.05 * float(size)), 1.0)
    depth = wp.cast(wp.max(p[2], 0.0), wp.uint32)
    light = float(0.0)
    if soft[0] > 0.0:
        for n in range(16):
            a = (float(n % 4) - 1.5) * 0.5
            b = (float(n / 4) - 1.5) * 0.5
            light += unhidden(highest, start, size, x + a * soft[0], y + b * soft[1], depth) / 16.0
    else:
        light = unhidden(highest, start, size, x, y, depth)
    return 1.0 - (1.0 - light) * fade


@wp.func
@no_type_check
def sky(lights: Lights, s: int, ray: wp.vec3):
    """Linear light of the sky in a direction of unit length, without the sun."""
    down = 1.0 - wp.clamp(ray[2], 0.0, 1.0)
    down = down * down
    low = lights.horizon[s]
    high = lights.zenith[s]
    colour = high + (low - high) * (down * down)
    return wp.cw_mul(colour, colour)


@wp.func
@no_type_check
def sky_with_sun(lights: Lights, s: int, ray: wp.vec3):
    """The same with the sun and its halo."""
    near = wp.dot(ray, lights.to_sun[s])
    colour = sky(lights, s, ray)
    if near > 0.9:
        sun = lights.sun_colour[s]
        colour += sun * (0.25 * wp.pow(near, 60.0) + 0.5 * wp.pow(near, 2000.0))
        if near > 0.99996:
            colour += sun * 4.0
    return colour


@wp.func
@no_type_check
def shade(
    library: Library, lights: Lights, instances: Instances, listing: Listing, k: int, s: int,
    x: float, y: float, step: float, size: int, highest: wp.array[wp.uint32],
):  # fmt: skip
    """Linear light that a camera gets from a triangle at one place x, y of the image.

    Args:
        k: The triangle in the listing.
        s: The scene.
        x: Column of the place in samples.
        y: Row of the place.
        step: Samples along the side of a pixel.
        size: Side of the shadow map, or 0.
        highest: The shadow maps.
    """
    i = listing.instance[k]
    m = instances.mesh[i]
    t = library.triangle[library.mesh[m, 2] + k - listing.first[i]]
    place0 = library.position[t[0]]
    place1 = library.position[t[1]]
    place2 = library.position[t[2]]
    image = instances.image[i]
    a = affine(image, place0)
    b = affine(image, place1)
    c = affine(image, place2)
    # the vertices as seen from x, y; cross products are the shares that each has in what is seen there, perspective
    # included, also where some are behind the camera (Olano and Greer 1997)
    ax = a[0] - x * a[2]
    ay = a[1] - y * a[2]
    bx = b[0] - x * b[2]
    by = b[1] - y * b[2]
    cx = c[0] - x * c[2]
    cy = c[1] - y * c[2]
    share = wp.vec3(bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx)
    total = share[0] + share[1] + share[2]
    if total == 0.0:
        total = float(1.0e-30)
    w = share / total

    model = instances.model[i]
    world = wp.transform_point(model, place0 * w[0] + place1 * w[1] + place2 * w[2])
    ray = world - lights.eye[s]
    far = wp.length(ray)
    ray = ray / wp.max(far, 1.0e-6)
    n0 = library.normal[t[0]]
    n1 = library.normal[t[1]]
    n2 = library.normal[t[2]]
    n4 = n0 * w[0] + n1 * w[1] + n2 * w[2]
    normal = instances.normal[i] * wp.vec3(n4[0], n4[1], n4[2])
    normal = wp.normalize(normal)
    face = instances.normal[i] * wp.cross(place1 - place0, place2 - place0)
    if wp.dot(face, normal) < 0.0:
        face = -face
    if wp.dot(face, ray) > 0.0:  # the back is seen
        normal = -normal

    paint = library.colour[t[0]] * w[0] + library.colour[t[1]] * w[1] + library.colour[t[2]] * w[2]
    colour = wp.vec3(paint[0], paint[1], paint[2])
    if paint[3] > 0.0:
        tint = instances.colour[i]
        tint = wp.cw_mul(tint, tint)
        colour = wp.cw_mul(colour, tint * paint[3] + wp.vec3(1.0, 1.0, 1.0) * (1.0 - paint[3]))
    if t[3] >= 0:
        uv0 = library.uv[t[0]]
        uv1 = library.uv[t[1]]
        uv2 = library.uv[t[2]]
        at = uv0 * w[0] + uv1 * w[1] + uv2 * w[2]
        # shares one pixel further along x, and along y
        dx = wp.vec3(b[2] * cy - by * c[2], c[2] * ay - cy * a[2], a[2] * by - ay * b[2]) * (-step)
        dy = wp.vec3(bx * c[2] - b[2] * cx, cx * a[2] - c[2] * ax, ax * b[2] - a[2] * bx) * (-step)
        sx = dx[0] + dx[1] + dx[2]
        sy = dy[0] + dy[1] + dy[2]
        across = (uv0 * dx[0] + uv1 * dx[1] + uv2 * dx[2] - at * sx) / total
        along = (uv0 * dy[0] + uv1 * dy[1] + uv2 * dy[2] - at * sy) / total
        colour = wp.cw_mul(colour, textured(library, t[3], at, across, along))

    sun = lights.to_sun[s]
    sunlight = lights.sun_colour[s]
    facing = wp.dot(normal, sun)
    open = float(0.0)
    if facing > 0.0 and wp.length_sq(sunlight) > 0.0:
        open = float(1.0)
        if size > 0:
            view = lights.view[s]
            p = affine(view, world)
            columns = wp.length(row(view, 0))
            rows = wp.length(row(view, 1))
            soft = lights.softness[s]
            if library.mesh[m, 4] == 1:
                # what casts shadows would fall into its own, by as much as a sample is wide
                wide = 1.0 / wp.min(columns, rows)
                tilt = wp.sqrt(wp.max(1.0 - facing * facing, 0.0))
                p = affine(view, world + normal * (wide * (0.3 + 1.4 * tilt) + soft * tilt) + sun * (0.3 * wide))
            open = lit(highest, s * size * size, size, p, wp.vec2(columns, rows) * soft)
    above = 0.5 + 0.5 * normal[2]
    light = lights.ambient[s] * above + lights.bounce[s] * (1.0 - above) + sunlight * (wp.max(facing, 0.0) * open)
    seen = wp.cw_mul(colour, light)
    gloss = n4[3]
    if gloss > 0.0:
        out = ray - normal * (2.0 * wp.dot(ray, normal))
        edge = 1.0 - wp.abs(wp.dot(ray, normal))
        edge = edge * edge * edge * edge * edge
        mirror = gloss * (0.06 + 0.94 * edge)
        around = wp.cw_mul(lights.bounce[s], wp.vec3(0.5, 0.5, 0.5))
        if out[2] > 0.0:
            around = sky(lights, s, out)
        seen = seen * (1.0 - mirror) + around * mirror
        if open > 0.0:
            seen += sunlight * (gloss * open * 0.8 * wp.pow(wp.max(wp.dot(out, sun), 0.0), 120.0))
    clear = wp.exp(-lights.fog[s] * far)
    haze = lights.fog_colour[s]
    return seen * clear + wp.cw_mul(haze, haze) * (1.0 - clear)


@wp.func
@no_type_check
def shown(light: float):
    """What a screen shows of linear light, before the square root: all but the brightest unchanged."""
    if light > 0.8:
        return 1.0 - 0.2 * wp.exp((0.8 - light) * 5.0)
    return wp.max(light, 0.0)


@wp.func
@no_type_check
def named(key: wp.uint64):
    """Place in the listing of the triangle that a sample holds, or -1."""
    if key == wp.uint64(0):
        return -1
    return int(LOW_HALF - (key & LOW_HALF))


@wp.func
@no_type_check
def owner(listing: Listing, k: int):
    """Instance of a triangle of the listing."""
    if k < 0:
        return NOBODY
    return listing.instance[k]


@wp.kernel
@no_type_check
def resolve(
    library: Library, cameras: Cameras, lights: Lights, instances: Instances, listing: Listing, labels: Labels,
    width: int, height: int, step: int, size: int, counting: bool, nearest: wp.array[wp.uint64],
    highest: wp.array[wp.uint32], image: wp.array4d[wp.float32], ids: wp.array3d[wp.int32],
    depth: wp.array3d[wp.float32],
):  # fmt: skip
    """Shade each pixel: once for each triangle among its samples, in the middle of those that show it.

    A pixel belongs to the instance that most of its samples show, the nearest if several do.

    Args:
        width: Pixels of a row.
        height: Rows of pixels.
        step: Samples along the side of a pixel.
        size: Side of the shadow map, or 0.
        counting: Whether to count what is seen of each instance.
        nearest: The samples.
        highest: The shadow maps.
        image: Colours, as a screen shows them.
        ids: Place of each pixel's instance in its scene, or -1.
        depth: Distance along the camera's axis in metres, infinite for the sky.
    """
    s, y, x = wp.tid()
    wide = width * step
    base = (s * height + y) * step * wide + x * step
    samples = step * step
    colour = wp.vec3(0.0, 0.0, 0.0)
    best = NOBODY
    most = int(0)
    best_q = float(0.0)
    done = int(0)
    first = nearest[base]
    alike = bool(True)
    q_of_all = float(0.0)
    for j in range(step):
        for i in range(step):
            sample = nearest[base + j * wide + i]
            q_of_all += wp.cast(wp.uint32(sample >> wp.uint64(32)), wp.float32)
            if (sample & LOW_HALF) != (first & LOW_HALF):
                alike = False
    for n in range(samples):
        if done < samples:
            key = nearest[base + n / step * wide + n % step]
            k = named(key)
            mine = owner(listing, k)
            # look back: was this triangle, was this instance among the samples before?
            old = bool(False)
            known = bool(False)
            for before_n in range(n):
                other = named(nearest[base + before_n / step * wide + before_n % step])
                if other == k:
                    old = True
                if owner(listing, other) == mine:
                    known = True
            if not old:
                # look ahead: how many samples show it, and where is their middle?
                count = int(samples)
                of_mine = int(samples)
                middle = wp.vec2(float(x * step + x * step + step), float(y * step + y * step + step)) * 0.5
                q = float(q_of_all)
                if not alike:
                    count = int(0)
                    of_mine = int(0)
                    corner = wp.vec2(0.0, 0.0)
                    q = float(0.0)
                    for later in range(n, samples):
                        sample = nearest[base + later / step * wide + later % step]
                        other = named(sample)
                        if other == k:
                            count += 1
                            corner += wp.vec2(float(later % step), float(later / step))
                        if owner(listing, other) == mine:
                            of_mine += 1
                            q += wp.cast(wp.uint32(sample >> wp.uint64(32)), wp.float32)
                    middle = corner / float(count) + wp.vec2(float(x * step) + 0.5, float(y * step) + 0.5)
                light = wp.vec3(0.0, 0.0, 0.0)
                if k >= 0:
                    light = shade(
                        library, lights, instances, listing, k, s, middle[0], middle[1], float(step), size,
                        highest,
                    )  # fmt: skip
                else:
                    f = cameras.focal[s]
                    c = cameras.centre[s]
                    pose = cameras.pose[s]
                    ray = row(pose, 0) * ((middle[0] - c[0]) / f[0]) + row(pose, 1) * ((middle[1] - c[1]) / f[1])
                    light = sky_with_sun(lights, s, wp.normalize(ray + row(pose, 2)))
                colour += wp.vec3(shown(light[0]), shown(light[1]), shown(light[2])) * float(count)
                done += count
                if not known:
                    q = q / float(of_mine)
                    if of_mine > most or (of_mine == most and q > best_q):
                        best = mine
                        most = of_mine
                        best_q = q
                    if counting and mine >= 0:
                        if instances.labelled[mine] != wp.uint8(0):
                            wp.atomic_add(labels.seen, mine, of_mine)
    colour = colour / float(samples)
    for channel in range(3):
        image[s, channel, y, x] = wp.sqrt(colour[channel])
    if best < 0:
        ids[s, y, x] = NOBODY
        depth[s, y, x] = wp.inf
    else:
        ids[s, y, x] = best % instances.number
        depth[s, y, x] = 1.0 / best_q
        if counting:
            if instances.labelled[best] != wp.uint8(0):
                wp.atomic_min(labels.box, best, 0, x)
                wp.atomic_min(labels.box, best, 1, y)
                wp.atomic_max(labels.box, best, 2, x + 1)
                wp.atomic_max(labels.box, best, 3, y + 1)
