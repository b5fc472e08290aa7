"""The kernel that turns triangles at samples into pixels: light, textures, shadows, sky, and who is seen where."""

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
    row,
)

wp.set_module_options(OPTIONS)

LEVELS = wp.constant(11)
"""Mip levels of a texture, as `meshes.LEVELS`."""
MAX_TAPS = wp.constant(4)
"""Samples along the longer side of a pixel's footprint on a texture: what keeps lane markings sharp far ahead."""
NOBODY = wp.constant(-1)


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
        taps = wp.clamp(int(longer / wp.max(shorter, 1.0) + 0.5), 1, MAX_TAPS)
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
