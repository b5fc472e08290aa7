"""Warp kernel that shades the visibility buffer: lighting, textures, shadows, sky, ids, depth, visible parts' boxes."""

from typing import no_type_check

import warp as wp

from ms2.render.engines.warp import packing
from ms2.render.engines.warp.structs import (
    LOW_32_BITS,
    OPTIONS,
    SHADOW_BLOCK,
    CameraData,
    DrawList,
    InstanceData,
    LabelBuffers,
    LightData,
    MeshData,
    TriangleSetup,
    larger,
    linear_row,
    smaller,
    transform_point,
)

wp.set_module_options(OPTIONS)

MIP_LEVELS = wp.constant(packing.MIP_LEVELS)
MAX_TAPS = wp.constant(4)
"""Maximum samples along the longer side of a pixel's texture footprint; they keep distant lane markings sharp."""
NO_INSTANCE = wp.constant(-1)


@wp.func
@no_type_check
def fast_floor(x: float):
    """Compute floor without a library call."""
    n = int(x)
    if float(n) > x:
        n -= 1
    return n


# Coordinates are counted in 1/256 of a texel; sides are powers of two, and textures repeat. Weights of four texels add
# up to 256; red and blue are weighted together, 16 bits apart.
TAPS = """
    wp::vec3 total(0.0f, 0.0f, 0.0f);
    for (int n = 0; n < 2; ++n) {
        const float weight = n == 0 ? 1.0f - blend : blend;
        if (!(weight > 0.0f)) continue;
        const unsigned int* texel = (const unsigned int*)texels.data + (n == 0 ? start : coarser);
        const int wide = width - n > 0 ? width - n : 0;
        const int high = height - n > 0 ? height - n : 0;
        const float across = (float)(256 << wide);
        const float along = (float)(256 << high);
        const float dx = step[0] * across;
        const float dy = step[1] * along;
        const float back = 0.5f * (float)(taps - 1);
        int x = (int)(u * across - 128.0f - dx * back);
        int y = (int)(v * along - 128.0f - dy * back);
        unsigned int red = 0, green = 0, blue = 0;
        for (int k = 0; k < taps; ++k) {
            const int i = x >> 8;
            const int j = y >> 8;
            const unsigned int a = x & 255;
            const unsigned int b = y & 255;
            const int last = (1 << wide) - 1;
            const unsigned int* low = texel + ((j & ((1 << high) - 1)) << wide);
            const unsigned int* top = texel + (((j + 1) & ((1 << high) - 1)) << wide);
            const unsigned int c00 = low[i & last], c10 = low[(i + 1) & last];
            const unsigned int c01 = top[i & last], c11 = top[(i + 1) & last];
            const unsigned int w11 = a * b >> 8;
            const unsigned int w10 = a - w11, w01 = b - w11, w00 = 256 - a - w01;
            const unsigned int m = 0xFF00FF;
            const unsigned int ends = (c00 & m) * w00 + (c10 & m) * w10 + (c01 & m) * w01 + (c11 & m) * w11;
            const unsigned int g = 0xFF00;
            const unsigned int middle = (c00 & g) * w00 + (c10 & g) * w10 + (c01 & g) * w01 + (c11 & g) * w11;
            red += ends & 0xFFFF;
            green += middle >> 8;
            blue += ends >> 16;
            x += (int)dx;
            y += (int)dy;
        }
        total[0] += weight * (float)red;
        total[1] += weight * (float)green;
        total[2] += weight * (float)blue;
    }
    return total / (65280.0f * (float)taps);
"""


@wp.func_native(TAPS)
@no_type_check
def filter_texels(
    texels: wp.array[wp.uint32], start: int, coarser: int, width: int, height: int, u: float, v: float, step: wp.vec2,
    taps: int, blend: float,
):  # fmt: skip
    """Average bilinear samples of a texture along a line, in two mip levels.

    Args:
        texels: Texels of all textures.
        start: First texel of the mip level.
        coarser: First texel of the next mip level.
        width: Binary logarithm of the level's width.
        height: Binary logarithm of its height.
        u: Horizontal texture coordinate of the line's middle.
        v: Vertical texture coordinate.
        step: Change of the texture coordinates from one sample to the next.
        taps: Number of samples.
        blend: Weight of the coarser level.
    """
    return wp.vec3()  # gives the type


@wp.func
@no_type_check
def approximate_log2(length: float):
    """Approximate log2 of a footprint's length in texels, linear between powers of two; the same on every machine."""
    bits = wp.cast(larger(1.0, length), wp.int32)
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
    taps = wp.clamp(int(longer / larger(1.0, shorter) + 0.5), 1, MAX_TAPS)
    level = approximate_log2(larger(longer / float(taps), shorter))
    base = wp.min(int(level), MIP_LEVELS - 1)
    # two levels are sampled only in the middle three fifths between them
    blend = smaller(larger((level - float(base) - 0.2) / 0.6, 0.0), 1.0)
    total = filter_texels(
        meshes.texel, meshes.texture[texture, 2 + base], meshes.texture[texture, 2 + wp.min(base + 1, MIP_LEVELS - 1)],
        wp.max(meshes.texture[texture, 0] - base, 0), wp.max(meshes.texture[texture, 1] - base, 0),
        uv[0] - float(fast_floor(uv[0])), uv[1] - float(fast_floor(uv[1])), step / float(taps), taps, blend,
    )  # fmt: skip
    return wp.cw_mul(total, total)


LIT_AREA = """
    float lit = 0.0f;
    for (int j = top; j <= bottom; ++j) {
        const float* row = shadow_depth.data + start + j * stride * size;
        int open = 0;
        for (int i = left; i <= right; ++i) open += row[i * stride] <= depth;
        float area = (float)open;
        if (row[left * stride] <= depth) area -= cut[0];
        if (row[right * stride] <= depth) area -= cut[2];
        lit += area * (1.0f - (j == top ? cut[1] : 0.0f) - (j == bottom ? cut[3] : 0.0f));
    }
    return lit;
"""


@wp.func_native(LIT_AREA)
@no_type_check
def lit_area(
    shadow_depth: wp.array[wp.float32], start: int, size: int, stride: int, left: int, top: int, right: int,
    bottom: int, cut: wp.vec4, depth: float,
):  # fmt: skip
    """Add up the lit samples of a rectangle of a shadow map; of those at its edges without the parts that are cut off.

    Args:
        shadow_depth: Shadow maps of all scenes.
        start: First sample of the scene's map.
        size: Samples along each side of a map.
        stride: Step from one sample to the next that counts.
        left: First column, in steps.
        top: First row.
        right: Last column.
        bottom: Last row.
        cut: Parts of a sample that are cut off at these four sides.
        depth: Depth of the point that the samples may shade.
    """
    return float(0.0)  # gives the type


@wp.func
@no_type_check
def sun_visibility(
    shadow_depth: wp.array[wp.float32], shadow_top: wp.array[wp.float32], scene: int, size: int, p: wp.vec3,
    area: wp.vec4,
):  # fmt: skip
    """Compute the fraction of the sun's light that reaches a point: that of a rectangle of the shadow map around it.

    Towards the map's edges shadows fade out, to avoid a visible border.

    Args:
        shadow_depth: Shadow maps of all scenes.
        shadow_top: Upper bound of the depths in each block of samples.
        scene: Index of the scene.
        size: Samples along each side of a map.
        p: Column, row and depth of the point in the map.
        area: The scene's ``shadow_filter``.
    """
    x = p[0] - 0.5
    y = p[1] - 0.5
    margin = smaller(smaller(x, y), float(size - 2) - larger(x, y))
    if not margin > 0.0:
        return float(1.0)
    depth = larger(0.0, p[2])
    wide = area[0]
    high = area[1]
    stride = int(area[2])
    last = (size - 1) / stride
    x = smaller(larger(x / area[2], wide), float(last) - wide)
    y = smaller(larger(y / area[2], high), float(last) - high)
    left = int(x - wide + 0.5)
    top = int(y - high + 0.5)
    right = wp.min(int(x + wide + 0.5), last)
    bottom = wp.min(int(y + high + 0.5), last)
    blocks = (size + SHADOW_BLOCK - 1) / SHADOW_BLOCK
    block_top = top * stride / SHADOW_BLOCK
    block_bottom = bottom * stride / SHADOW_BLOCK
    block_right = right * stride / SHADOW_BLOCK
    shaded = bool(False)
    while block_top <= block_bottom and not shaded:
        block = left * stride / SHADOW_BLOCK
        while block <= block_right:
            if shadow_top[(scene * blocks + block_top) * blocks + block] > depth:
                shaded = True
            block += 1
        block_top += 1
    if not shaded:
        return float(1.0)
    cut = wp.vec4(
        x - wide + 0.5 - float(left), y - high + 0.5 - float(top),
        float(right) + 0.5 - x - wide, float(bottom) + 0.5 - y - high,
    )  # fmt: skip
    start = scene * size * size
    light = lit_area(shadow_depth, start, size, stride, left, top, right, bottom, cut, depth) / (4.0 * wide * high)
    fade = smaller(margin / (0.05 * float(size)), 1.0)
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
    meshes: MeshData, lights: LightData, instances: InstanceData, setup: TriangleSetup, k: int, i: int, s: int,
    x: float, y: float, step: float, ray: wp.vec3, distance: float, shadow_size: int,
    shadow_depth: wp.array[wp.float32], shadow_top: wp.array[wp.float32],
):  # fmt: skip
    """Compute the radiance of a triangle at an image position.

    Args:
        meshes: Packed meshes.
        lights: Lighting of the scenes.
        instances: Instances with their matrices.
        setup: Triangles to shade.
        k: Index of the triangle in the draw list.
        i: Index of its instance.
        s: Index of the scene.
        x: Column of the position in samples.
        y: Row of the position in samples.
        step: Samples along each side of a pixel.
        ray: Direction of unit length from the camera in world coordinates.
        distance: Distance from the camera in metres.
        shadow_size: Samples along each side of the shadow map, or 0.
        shadow_depth: Shadow maps of all scenes.
        shadow_top: Upper bound of the depths in each block of a shadow map.
    """
    t = setup.corners[k]
    plane0 = setup.planes[4 * k]
    plane1 = setup.planes[4 * k + 1]
    plane2 = setup.planes[4 * k + 2]
    face = setup.planes[4 * k + 3]
    u = x - plane0[3]
    v = y - plane1[3]
    share = wp.vec3(
        plane0[0] * u + plane0[1] * v + plane0[2],
        plane1[0] * u + plane1[1] * v + plane1[2],
        plane2[0] * u + plane2[1] * v + plane2[2],
    )
    total = share[0] + share[1] + share[2]
    if total == 0.0:
        total = float(1.0e-30)
    inverse = 1.0 / total
    w = share * inverse

    n4 = meshes.normal[t[0]] * w[0] + meshes.normal[t[1]] * w[1] + meshes.normal[t[2]] * w[2]
    normal = instances.normal[i] * wp.vec3(n4[0], n4[1], n4[2])
    normal = normal * (1.0 / wp.sqrt(larger(1.0e-30, wp.length_sq(normal))))
    if face[0] * normal[0] + face[1] * normal[1] + face[2] * normal[2] < 0.0:  # the back side is visible
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
        # change from one pixel to the next: of the barycentric coordinates, less that of their sum
        scale = step * inverse
        footprint_x = uv0 * plane0[0] + uv1 * plane1[0] + uv2 * plane2[0] - uv * (plane0[0] + plane1[0] + plane2[0])
        footprint_y = uv0 * plane0[1] + uv1 * plane1[1] + uv2 * plane2[1] - uv * (plane0[1] + plane1[1] + plane2[1])
        colour = wp.cw_mul(colour, sample_texture(meshes, t[3], uv, footprint_x * scale, footprint_y * scale))

    sun = lights.sun_direction[s]
    sunlight = lights.sun_colour[s]
    facing = wp.dot(normal, sun)
    open = float(0.0)
    if facing > 0.0 and wp.length_sq(sunlight) > 0.0:
        open = float(1.0)
        if shadow_size > 0:
            world = lights.camera_position[s] + ray * distance
            area = lights.shadow_filter[s]
            if plane2[3] > 0.0:  # casts a shadow
                # offset against self-shadowing, proportional to the width of a sample
                wide = area[3]
                soft = lights.softness[s]
                tilt = wp.sqrt(larger(0.0, 1.0 - facing * facing))
                world = world + normal * (wide * (0.3 + 1.4 * tilt) + soft * tilt) + sun * (0.3 * wide)
            p = transform_point(lights.shadow_view[s], world)
            open = sun_visibility(shadow_depth, shadow_top, s, shadow_size, p, area)
    above = 0.5 + 0.5 * normal[2]
    light = lights.ambient[s] * above + lights.bounce[s] * (1.0 - above) + sunlight * (larger(0.0, facing) * open)
    seen = wp.cw_mul(colour, light)
    gloss = n4[3]
    if gloss > 0.0:
        out = ray - normal * (2.0 * wp.dot(ray, normal))
        edge = 1.0 - wp.abs(wp.dot(ray, normal))
        edge = edge * edge * edge * edge * edge
        mirror = gloss * (0.06 + 0.94 * edge)
        around = lights.bounce[s] * 0.5
        if out[2] > 0.0:
            around = sky_radiance(lights, s, out)
        seen = seen * (1.0 - mirror) + around * mirror
        if open > 0.0:
            seen += sunlight * (gloss * open * 0.8 * wp.pow(larger(0.0, wp.dot(out, sun)), 120.0))
    clear = wp.exp(-lights.fog[s] * distance)
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


@wp.func
@no_type_check
def nearness(key: wp.uint64):
    """Return q = 1 / w of an entry of the visibility buffer."""
    return wp.cast(wp.uint32(key >> wp.uint64(32)), wp.float32)


@wp.func
@no_type_check
def view_ray(cameras: CameraData, s: int, x: float, y: float):
    """Compute the direction of an image position in world coordinates, 1 m long along the optical axis."""
    f = cameras.focal[s]
    c = cameras.centre[s]
    pose = cameras.pose[s]
    ray = linear_row(pose, 0) * ((x - c[0]) / f[0]) + linear_row(pose, 1) * ((y - c[1]) / f[1])
    return ray + linear_row(pose, 2)


@wp.func
@no_type_check
def resolve_pixel(
    pixel: int,
    meshes: MeshData, cameras: CameraData, lights: LightData, instances: InstanceData, draw_list: DrawList,
    setup: TriangleSetup, labels: LabelBuffers, width: int, height: int, step: int, shadow_size: int,
    compute_labels: bool, nearest: wp.array[wp.uint64], shadow_depth: wp.array[wp.float32],
    shadow_top: wp.array[wp.float32], image: wp.array4d[wp.float32], ids: wp.array3d[wp.int32],
    depth: wp.array3d[wp.float32],
):  # fmt: skip
    """Shade a pixel of all scenes'; arguments as of `resolve`."""
    row = pixel / width
    x = pixel - row * width
    s = row / height
    y = row - s * height
    wide = width * step
    base = row * step * wide + x * step
    samples = step * step
    inverse_step = 1.0 / float(step)
    colour = wp.vec3(0.0, 0.0, 0.0)
    best = NO_INSTANCE
    most = int(0)
    best_q = float(0.0)
    first = triangle_index(nearest[base])
    alike = bool(True)
    q_of_all = float(0.0)
    j = int(0)
    while j < step:
        i = int(0)
        while i < step:
            key = nearest[base + j * wide + i]
            q_of_all += nearness(key)
            if triangle_index(key) != first:
                alike = False
            i += 1
        j += 1
    n = int(0)
    done = int(0)
    while done < samples:
        k = first
        new = bool(True)
        new_instance = bool(True)
        count = int(samples)
        corner = wp.vec2(float(samples * (step - 1)), float(samples * (step - 1))) * 0.5
        q = float(q_of_all)
        of_instance = int(samples)
        q_of_instance = float(q_of_all)
        if not alike:
            # of the samples that show this triangle, and this instance: their number, their centroid and their mean q
            k = triangle_index(nearest[base + int((float(n) + 0.5) * inverse_step) * (wide - step) + n])
        instance = instance_of(draw_list, k)
        if not alike:
            count = int(0)
            corner = wp.vec2(0.0, 0.0)
            q = float(0.0)
            of_instance = int(0)
            q_of_instance = float(0.0)
            m = int(0)
            while m < samples:
                j = int((float(m) + 0.5) * inverse_step)  # m / step
                key = nearest[base + j * (wide - step) + m]
                other = triangle_index(key)
                if other == k:
                    if m < n:
                        new = False
                    count += 1
                    corner += wp.vec2(float(m - j * step), float(j))
                    q += nearness(key)
                if instance_of(draw_list, other) == instance:
                    if m < n:
                        new_instance = False
                    of_instance += 1
                    q_of_instance += nearness(key)
                m += 1
        if new:
            middle = corner / float(count) + wp.vec2(float(x * step) + 0.5, float(y * step) + 0.5)
            ray = view_ray(cameras, s, middle[0], middle[1])
            length = wp.length(ray)
            ray = ray * (1.0 / length)
            light = wp.vec3(0.0, 0.0, 0.0)
            if k >= 0:
                distance = length * float(count) / q
                light = shade(
                    meshes, lights, instances, setup, k, instance, s, middle[0], middle[1], float(step), ray, distance,
                    shadow_size, shadow_depth, shadow_top,
                )  # fmt: skip
            else:
                light = sky_radiance_with_sun(lights, s, ray)
            colour += wp.vec3(tone_map(light[0]), tone_map(light[1]), tone_map(light[2])) * float(count)
            done += count
            if new_instance:
                q_of_instance = q_of_instance / float(of_instance)
                if of_instance > most or (of_instance == most and q_of_instance > best_q):
                    best = instance
                    most = of_instance
                    best_q = q_of_instance
                if compute_labels and instance >= 0:
                    if instances.labelled[instance] != wp.uint8(0):
                        wp.atomic_add(labels.visible, instance, of_instance)
        n += 1
    colour = colour * (1.0 / float(samples))
    for channel in range(3):
        image[s, channel, y, x] = wp.sqrt(colour[channel])
    if best < 0:
        ids[s, y, x] = NO_INSTANCE
        depth[s, y, x] = wp.inf
    else:
        ids[s, y, x] = best - s * instances.per_scene
        depth[s, y, x] = 1.0 / best_q
        if compute_labels:
            if instances.labelled[best] != wp.uint8(0):
                wp.atomic_min(labels.box, best, 0, x)
                wp.atomic_min(labels.box, best, 1, y)
                wp.atomic_max(labels.box, best, 2, x + 1)
                wp.atomic_max(labels.box, best, 3, y + 1)


@wp.kernel
@no_type_check
def resolve(
    meshes: MeshData, cameras: CameraData, lights: LightData, instances: InstanceData, draw_list: DrawList,
    setup: TriangleSetup, labels: LabelBuffers, width: int, height: int, run: int, step: int, shadow_size: int,
    compute_labels: bool, nearest: wp.array[wp.uint64], shadow_depth: wp.array[wp.float32],
    shadow_top: wp.array[wp.float32], image: wp.array4d[wp.float32], ids: wp.array3d[wp.int32],
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
        setup: Triangles to shade.
        labels: Label buffers; visible samples and boxes are written.
        width: Pixels of a row.
        height: Rows of pixels.
        run: Pixels that each thread shades, one after the other.
        step: Samples along each side of a pixel.
        shadow_size: Samples along each side of the shadow map, or 0.
        compute_labels: Whether to compute each instance's visible samples, and the box of its visible pixels.
        nearest: Visibility buffer of all scenes.
        shadow_depth: Shadow maps of all scenes.
        shadow_top: Upper bound of the depths in each block of a shadow map.
        image: Display colours in [0, 1].
        ids: Index in its scene of each pixel's instance, or -1.
        depth: Distance along the optical axis in metres; infinite for the sky.
    """
    first = wp.tid() * run
    pixel = int(first)
    while pixel < first + run:
        resolve_pixel(
            pixel, meshes, cameras, lights, instances, draw_list, setup, labels, width, height, step, shadow_size,
            compute_labels, nearest, shadow_depth, shadow_top, image, ids, depth,
        )  # fmt: skip
        pixel += 1
