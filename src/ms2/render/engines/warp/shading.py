"""Warp kernel that shades the visibility buffer: lighting, textures, shadows, sky, ids, depth, visible parts' boxes."""

from typing import no_type_check

import warp as wp

from ms2.render.engines.warp import packing
from ms2.render.engines.warp.structs import (
    LOW_32_BITS,
    OPTIONS,
    CameraData,
    DrawList,
    InstanceData,
    LabelBuffers,
    LightData,
    MeshData,
    linear_row,
    transform_point,
)

wp.set_module_options(OPTIONS)

MIP_LEVELS = wp.constant(packing.MIP_LEVELS)
MAX_TAPS = wp.constant(4)
"""Maximum samples along the longer side of a pixel's texture footprint; they keep distant lane markings sharp."""
NO_INSTANCE = wp.constant(-1)


@wp.func
@no_type_check
def bilinear(texels: wp.array[wp.uint32], start: int, width: int, height: int, u: float, v: float):
    """Sample a texture bilinearly, with wrapping: red, green and blue from 0 to 65280, which is 255 times 256.

    Red and blue are weighted together, 16 bits apart; weights add up to 256. Sides are powers of two.

    Args:
        texels: Texels of all textures.
        start: First texel of the mip level.
        width: Binary logarithm of its width.
        height: Binary logarithm of its height.
        u: Horizontal texture coordinate.
        v: Vertical texture coordinate.
    """
    x = u * float(1 << width) - 0.5
    y = v * float(1 << height) - 0.5
    i = fast_floor(x)
    j = fast_floor(y)
    a = wp.uint32((x - float(i)) * 256.0)
    b = wp.uint32((y - float(j)) * 256.0)
    both = (a * b) >> wp.uint32(8)
    across = (1 << width) - 1
    along = (1 << height) - 1
    low = start + ((j & along) << width)
    top = start + (((j + 1) & along) << width)
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
def fast_floor(x: float):
    """Compute floor without a library call."""
    n = int(x)
    if float(n) > x:
        n -= 1
    return n


@wp.func
@no_type_check
def approximate_log2(length: float):
    """Approximate log2 of a footprint's length in texels, linear between powers of two; the same on every machine."""
    bits = wp.cast(wp.max(length, 1.0), wp.int32)
    return float((bits >> 23) - 127) + float(bits & 0x7FFFFF) / 8388608.0


@wp.func
@no_type_check
def sample_texture(meshes: MeshData, texture: int, uv: wp.vec2, footprint_x: wp.vec2, footprint_y: wp.vec2):
    """Sample a texture anisotropically, in linear light.

    Args:
        meshes: Packed meshes.
        texture: Index of the texture.
        uv: Texture coordinates of the pixel's centre.
        footprint_x: Change of texture coordinates from one pixel to the next in its row.
        footprint_y: The change to the next row.
    """
    sides = wp.vec2(float(1 << meshes.texture[texture, 0]), float(1 << meshes.texture[texture, 1]))
    longer = wp.length(wp.cw_mul(footprint_x, sides))
    shorter = wp.length(wp.cw_mul(footprint_y, sides))
    step = footprint_x
    if shorter > longer:
        step = footprint_y
        swap = longer
        longer = shorter
        shorter = swap
    taps = int(1)
    if longer > 1.0:
        taps = wp.clamp(int(longer / wp.max(shorter, 1.0) + 0.5), 1, MAX_TAPS)
    level = approximate_log2(wp.max(longer / float(taps), shorter))
    base = wp.min(int(level), MIP_LEVELS - 1)
    # two levels are sampled only in the middle three fifths between them
    blend = wp.clamp((level - float(base) - 0.2) / 0.6, 0.0, 1.0)
    total = wp.vec3(0.0, 0.0, 0.0)
    for n in range(2):
        weight = blend
        if n == 0:
            weight = 1.0 - blend
        if weight > 0.0:
            here = wp.min(base + n, MIP_LEVELS - 1)
            start = meshes.texture[texture, 2 + here]
            wide = wp.max(meshes.texture[texture, 0] - here, 0)
            high = wp.max(meshes.texture[texture, 1] - here, 0)
            for k in range(taps):
                p = uv + step * ((float(k) + 0.5) / float(taps) - 0.5)
                total += bilinear(meshes.texel, start, wide, high, p[0], p[1]) * weight
    total = total / (65280.0 * float(taps))
    return wp.cw_mul(total, total)


@wp.func
@no_type_check
def sample_shadow_map(shadow_depth: wp.array[wp.float32], start: int, size: int, x: float, y: float, depth: float):
    """Compute the bilinear visibility of a point in the shadow map."""
    x = wp.clamp(x, 0.0, float(size - 2))
    y = wp.clamp(y, 0.0, float(size - 2))
    i = int(x)
    j = int(y)
    x -= float(i)
    y -= float(j)
    k = start + j * size + i
    light = float(0.0)
    if shadow_depth[k] <= depth:
        light += (1.0 - x) * (1.0 - y)
    if shadow_depth[k + 1] <= depth:
        light += x * (1.0 - y)
    if shadow_depth[k + size] <= depth:
        light += (1.0 - x) * y
    if shadow_depth[k + size + 1] <= depth:
        light += x * y
    return light


@wp.func
@no_type_check
def sun_visibility(shadow_depth: wp.array[wp.float32], start: int, size: int, p: wp.vec3, filter_radius: wp.vec2):
    """Compute the fraction of the sun's light that reaches a point, by percentage-closer filtering.

    Towards the map's edges shadows fade out, to avoid a visible border.

    Args:
        shadow_depth: Shadow maps of all scenes.
        start: First sample of the scene's map.
        size: Samples along each side of a map.
        p: Column, row and depth of the point in the map.
        filter_radius: Half width of a penumbra in columns and rows.
    """
    x = p[0] - 0.5
    y = p[1] - 0.5
    margin = wp.min(wp.min(x, y), float(size - 2) - wp.max(x, y))
    if not margin > 0.0:
        return float(1.0)
    fade = wp.min(margin / (0.05 * float(size)), 1.0)
    depth = wp.max(p[2], 0.0)
    light = float(0.0)
    if filter_radius[0] > 0.0:
        for n in range(16):
            a = (float(n % 4) - 1.5) * 0.5
            b = (float(n / 4) - 1.5) * 0.5
            u = x + a * filter_radius[0]
            v = y + b * filter_radius[1]
            light += sample_shadow_map(shadow_depth, start, size, u, v, depth) / 16.0
    else:
        light = sample_shadow_map(shadow_depth, start, size, x, y, depth)
    return 1.0 - (1.0 - light) * fade


@wp.func
@no_type_check
def sky_radiance(lights: LightData, s: int, ray: wp.vec3):
    """Compute the sky's radiance in a direction of unit length, without the sun."""
    down = 1.0 - wp.clamp(ray[2], 0.0, 1.0)
    down = down * down
    low = lights.horizon[s]
    high = lights.zenith[s]
    colour = high + (low - high) * (down * down)
    return wp.cw_mul(colour, colour)


@wp.func
@no_type_check
def sky_radiance_with_sun(lights: LightData, s: int, ray: wp.vec3):
    """Compute the sky's radiance in a direction of unit length, with the sun and its halo."""
    near = wp.dot(ray, lights.sun_direction[s])
    colour = sky_radiance(lights, s, ray)
    if near > 0.9:
        sun = lights.sun_colour[s]
        colour += sun * (0.25 * wp.pow(near, 60.0) + 0.5 * wp.pow(near, 2000.0))
        if near > 0.99996:
            colour += sun * 4.0
    return colour


@wp.func
@no_type_check
def shade(
    meshes: MeshData, lights: LightData, instances: InstanceData, draw_list: DrawList, k: int, s: int,
    x: float, y: float, step: float, shadow_size: int, shadow_depth: wp.array[wp.float32],
):  # fmt: skip
    """Compute the radiance of a triangle at an image position.

    Args:
        meshes: Packed meshes.
        lights: Lighting of the scenes.
        instances: Instances with their matrices.
        draw_list: Triangles drawn.
        k: Index of the triangle in the draw list.
        s: Index of the scene.
        x: Column of the position in samples.
        y: Row of the position in samples.
        step: Samples along each side of a pixel.
        shadow_size: Samples along each side of the shadow map, or 0.
        shadow_depth: Shadow maps of all scenes.
    """
    i = draw_list.instance[k]
    m = instances.mesh[i]
    t = meshes.triangle[meshes.mesh[m, 2] + k - draw_list.first_triangle[i]]
    place0 = meshes.position[t[0]]
    place1 = meshes.position[t[1]]
    place2 = meshes.position[t[2]]
    image = instances.image[i]
    a = transform_point(image, place0)
    b = transform_point(image, place1)
    c = transform_point(image, place2)
    # vertices relative to x, y; their cross products are perspective-correct barycentric coordinates, also where
    # vertices are behind the camera (Olano and Greer 1997)
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
    ray = world - lights.camera_position[s]
    far = wp.length(ray)
    ray = ray / wp.max(far, 1.0e-6)
    n0 = meshes.normal[t[0]]
    n1 = meshes.normal[t[1]]
    n2 = meshes.normal[t[2]]
    n4 = n0 * w[0] + n1 * w[1] + n2 * w[2]
    normal = instances.normal[i] * wp.vec3(n4[0], n4[1], n4[2])
    normal = wp.normalize(normal)
    face = instances.normal[i] * wp.cross(place1 - place0, place2 - place0)
    if wp.dot(face, normal) < 0.0:
        face = -face
    if wp.dot(face, ray) > 0.0:  # the back side is visible
        normal = -normal

    paint = meshes.colour[t[0]] * w[0] + meshes.colour[t[1]] * w[1] + meshes.colour[t[2]] * w[2]
    colour = wp.vec3(paint[0], paint[1], paint[2])
    if paint[3] > 0.0:
        tint = instances.colour[i]
        tint = wp.cw_mul(tint, tint)
        colour = wp.cw_mul(colour, tint * paint[3] + wp.vec3(1.0, 1.0, 1.0) * (1.0 - paint[3]))
    if t[3] >= 0:
        uv0 = meshes.uv[t[0]]
        uv1 = meshes.uv[t[1]]
        uv2 = meshes.uv[t[2]]
        uv = uv0 * w[0] + uv1 * w[1] + uv2 * w[2]
        # change of the barycentric coordinates per pixel along x, and along y
        dx = wp.vec3(b[2] * cy - by * c[2], c[2] * ay - cy * a[2], a[2] * by - ay * b[2]) * (-step)
        dy = wp.vec3(bx * c[2] - b[2] * cx, cx * a[2] - c[2] * ax, ax * b[2] - a[2] * bx) * (-step)
        sx = dx[0] + dx[1] + dx[2]
        sy = dy[0] + dy[1] + dy[2]
        footprint_x = (uv0 * dx[0] + uv1 * dx[1] + uv2 * dx[2] - uv * sx) / total
        footprint_y = (uv0 * dy[0] + uv1 * dy[1] + uv2 * dy[2] - uv * sy) / total
        colour = wp.cw_mul(colour, sample_texture(meshes, t[3], uv, footprint_x, footprint_y))

    sun = lights.sun_direction[s]
    sunlight = lights.sun_colour[s]
    facing = wp.dot(normal, sun)
    open = float(0.0)
    if facing > 0.0 and wp.length_sq(sunlight) > 0.0:
        open = float(1.0)
        if shadow_size > 0:
            view = lights.shadow_view[s]
            p = transform_point(view, world)
            columns = wp.length(linear_row(view, 0))
            rows = wp.length(linear_row(view, 1))
            soft = lights.softness[s]
            if meshes.mesh[m, 4] == 1:
                # offset against self-shadowing, proportional to the width of a sample
                wide = 1.0 / wp.min(columns, rows)
                tilt = wp.sqrt(wp.max(1.0 - facing * facing, 0.0))
                shifted = world + normal * (wide * (0.3 + 1.4 * tilt) + soft * tilt) + sun * (0.3 * wide)
                p = transform_point(view, shifted)
            start = s * shadow_size * shadow_size
            open = sun_visibility(shadow_depth, start, shadow_size, p, wp.vec2(columns, rows) * soft)
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
            around = sky_radiance(lights, s, out)
        seen = seen * (1.0 - mirror) + around * mirror
        if open > 0.0:
            seen += sunlight * (gloss * open * 0.8 * wp.pow(wp.max(wp.dot(out, sun), 0.0), 120.0))
    clear = wp.exp(-lights.fog[s] * far)
    haze = lights.fog_colour[s]
    return seen * clear + wp.cw_mul(haze, haze) * (1.0 - clear)


@wp.func
@no_type_check
def tone_map(light: float):
    """Compress highlights above 0.8 of linear light, before gamma."""
    if light > 0.8:
        return 1.0 - 0.2 * wp.exp((0.8 - light) * 5.0)
    return wp.max(light, 0.0)


@wp.func
@no_type_check
def triangle_index(key: wp.uint64):
    """Return the index in the draw list of the triangle in an entry of the visibility buffer; -1 for none."""
    if key == wp.uint64(0):
        return -1
    return int(LOW_32_BITS - (key & LOW_32_BITS))


@wp.func
@no_type_check
def instance_of(draw_list: DrawList, k: int):
    """Return the instance of a triangle in the draw list; -1 for none."""
    if k < 0:
        return NO_INSTANCE
    return draw_list.instance[k]


@wp.kernel
@no_type_check
def resolve(
    meshes: MeshData, cameras: CameraData, lights: LightData, instances: InstanceData, draw_list: DrawList,
    labels: LabelBuffers, width: int, height: int, step: int, shadow_size: int, compute_labels: bool,
    nearest: wp.array[wp.uint64],
    shadow_depth: wp.array[wp.float32], image: wp.array4d[wp.float32], ids: wp.array3d[wp.int32],
    depth: wp.array3d[wp.float32],
):  # fmt: skip
    """Shade each pixel, once per visible triangle, at the centroid of its samples.

    A pixel belongs to the instance with most of its samples, the nearest one of several.

    Args:
        meshes: Packed meshes.
        cameras: Cameras of the scenes.
        lights: Lighting of the scenes.
        instances: Instances with their matrices.
        draw_list: Triangles drawn.
        labels: Label buffers; visible samples and boxes are written.
        width: Pixels of a row.
        height: Rows of pixels.
        step: Samples along each side of a pixel.
        shadow_size: Samples along each side of the shadow map, or 0.
        compute_labels: Whether to compute each instance's visible samples, and the box of its visible pixels.
        nearest: Visibility buffer of all scenes.
        shadow_depth: Shadow maps of all scenes.
        image: Display colours in [0, 1].
        ids: Index in its scene of each pixel's instance, or -1.
        depth: Distance along the optical axis in metres; infinite for the sky.
    """
    s, y, x = wp.tid()
    wide = width * step
    base = (s * height + y) * step * wide + x * step
    samples = step * step
    colour = wp.vec3(0.0, 0.0, 0.0)
    best = NO_INSTANCE
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
            if (sample & LOW_32_BITS) != (first & LOW_32_BITS):
                alike = False
    for n in range(samples):
        if done < samples:
            key = nearest[base + n / step * wide + n % step]
            k = triangle_index(key)
            instance = instance_of(draw_list, k)
            # does an earlier sample show this triangle, or this instance?
            old = bool(False)
            known = bool(False)
            for before_n in range(n):
                other = triangle_index(nearest[base + before_n / step * wide + before_n % step])
                if other == k:
                    old = True
                if instance_of(draw_list, other) == instance:
                    known = True
            if not old:
                # count the samples of the triangle and of the instance, and compute the triangle's centroid
                count = int(samples)
                of_instance = int(samples)
                middle = wp.vec2(float(x * step + x * step + step), float(y * step + y * step + step)) * 0.5
                q = float(q_of_all)
                if not alike:
                    count = int(0)
                    of_instance = int(0)
                    corner = wp.vec2(0.0, 0.0)
                    q = float(0.0)
                    for later in range(n, samples):
                        sample = nearest[base + later / step * wide + later % step]
                        other = triangle_index(sample)
                        if other == k:
                            count += 1
                            corner += wp.vec2(float(later % step), float(later / step))
                        if instance_of(draw_list, other) == instance:
                            of_instance += 1
                            q += wp.cast(wp.uint32(sample >> wp.uint64(32)), wp.float32)
                    middle = corner / float(count) + wp.vec2(float(x * step) + 0.5, float(y * step) + 0.5)
                light = wp.vec3(0.0, 0.0, 0.0)
                if k >= 0:
                    light = shade(
                        meshes, lights, instances, draw_list, k, s, middle[0], middle[1], float(step), shadow_size,
                        shadow_depth,
                    )  # fmt: skip
                else:
                    f = cameras.focal[s]
                    c = cameras.centre[s]
                    pose = cameras.pose[s]
                    ray = linear_row(pose, 0) * ((middle[0] - c[0]) / f[0])
                    ray = ray + linear_row(pose, 1) * ((middle[1] - c[1]) / f[1])
                    light = sky_radiance_with_sun(lights, s, wp.normalize(ray + linear_row(pose, 2)))
                colour += wp.vec3(tone_map(light[0]), tone_map(light[1]), tone_map(light[2])) * float(count)
                done += count
                if not known:
                    q = q / float(of_instance)
                    if of_instance > most or (of_instance == most and q > best_q):
                        best = instance
                        most = of_instance
                        best_q = q
                    if compute_labels and instance >= 0:
                        if instances.labelled[instance] != wp.uint8(0):
                            wp.atomic_add(labels.visible, instance, of_instance)
    colour = colour / float(samples)
    for channel in range(3):
        image[s, channel, y, x] = wp.sqrt(colour[channel])
    if best < 0:
        ids[s, y, x] = NO_INSTANCE
        depth[s, y, x] = wp.inf
    else:
        ids[s, y, x] = best % instances.per_scene
        depth[s, y, x] = 1.0 / best_q
        if compute_labels:
            if instances.labelled[best] != wp.uint8(0):
                wp.atomic_min(labels.box, best, 0, x)
                wp.atomic_min(labels.box, best, 1, y)
                wp.atomic_max(labels.box, best, 2, x + 1)
                wp.atomic_max(labels.box, best, 3, y + 1)
