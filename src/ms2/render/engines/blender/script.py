"""The program that Blender's interpreter runs: a line of JSON for each scene on standard input, an answer on output.

It needs ``bpy`` and NumPy alone, and nothing of ms2: Blender has an interpreter of its own. A request has

- ``library``: folder of meshes and textures, as `ms2.render.engines.blender.process.LibraryFolder` writes them;
- ``numbers``, ``meshes``, ``transforms``, ``colours``: of each instance its index in the scene, that of its mesh, its
  matrix to the world's axes, and its colour in linear light;
- ``camera``: ``focal`` and ``centre`` in pixels, ``matrix`` from the camera's axes (y up, z backward) to the world's,
  and ``near``; ``size``: height and width in pixels;
- ``lighting``: fields of `ms2.render.scene3d.lighting.Lighting`;
- ``samples``, ``denoise``, ``bounces``, ``device``, ``threads``; ``index``, whether to write the object-index pass;
- ``file``: OpenEXR file to write, in linear light.
"""

import json
import math
import os
import sys
from typing import Any

import numpy as np

try:
    import bpy
    import mathutils
except ImportError as error:
    bpy = mathutils = None
    PROBLEM = f"this interpreter, {sys.executable}, has no bpy ({error}): install it there, or name another one"
else:
    PROBLEM = ""

ROUGHNESS = 0.25
"""Roughness of polished surfaces, whose highlights are about as wide as those of the rasteriser."""
MIN_SUN_ANGLE = 0.0093
"""Angle of the sun's disc in radians."""
OCCLUDER_DISTANCE = 1.5
"""Distance in metres from what casts a shadow, such as a car's body, at which the penumbra has the scene's softness."""


class Nodes:
    """Builds the nodes of a material, of a world or of a group.

    Args:
        tree: The tree that they are added to, which is emptied.
    """

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        tree.nodes.clear()

    def add(self, kind: str, *inputs: Any, output: Any = 0, **settings: Any) -> Any:
        """Add a node whose inputs are sockets, numbers, or None for the default; return one of its outputs."""
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in settings.items():
            setattr(node, name, value)
        for socket, value in zip(node.inputs, inputs):  # noqa: B905 - the others keep their defaults
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, socket)
            elif value is not None:
                socket.default_value = value
        return node.outputs[output] if node.outputs else node

    def math(self, operation: str, *inputs: Any) -> Any:
        """Compute with numbers."""
        return self.add("Math", *inputs, operation=operation)

    def vector(self, operation: str, *inputs: Any) -> Any:
        """Compute with vectors or colours, component by component."""
        return self.add("VectorMath", *inputs, operation=operation)

    def scaled(self, vector: Any, factor: Any) -> Any:
        """Multiply a vector by a number."""
        return self.add("VectorMath", vector, None, None, factor, operation="SCALE")

    def value(self, name: str) -> Any:
        """Return a number or colour that is set for each scene, by `set_value`."""
        node = self.tree.nodes.get(name) or self.tree.nodes.new("ShaderNodeCombineXYZ")
        node.name = name
        return node.outputs[0]

    def number(self, name: str) -> Any:
        """Return the first component of `value`."""
        return self.add("SeparateXYZ", self.value(name))

    def attribute(self, name: str, output: str) -> Any:
        """Return an attribute of the mesh's vertices."""
        return self.add("Attribute", output=output, attribute_name=name)


def set_value(tree: Any, name: str, values: Any) -> None:
    """Set what `Nodes.value` returns: three numbers, or one."""
    values = values if isinstance(values, list) else [values] * 3
    for socket, value in zip(tree.nodes[name].inputs, values):  # noqa: B905
        if socket.default_value != value:  # a change makes Cycles read all materials again
            socket.default_value = value


class Stage:
    """The scene in Blender: meshes and materials stay from one request to the next, objects are made again.

    Args:
        library: Path of the folder with meshes and textures.
    """

    def __init__(self, library: str) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.library = library
        self.scene = bpy.context.scene
        self.meshes: dict[int, Any] = {}
        self.materials: dict[tuple[str, bool], Any] = {}
        self.haze = bpy.data.node_groups.new("haze", "ShaderNodeTree")
        build_haze(self.haze)
        self.world = self.scene.world = bpy.data.worlds.new("sky")
        self.world.use_nodes = True
        build_sky(self.world.node_tree)
        # its light is nearly uniform, so that directions are best chosen by the surface
        self.world.cycles.sampling_method = "NONE"
        self.camera = self.new("camera", bpy.data.cameras.new("camera"))
        self.sun = self.new("sun", bpy.data.lights.new("sun", "SUN"))
        self.scene.camera = self.camera
        self.objects: list[Any] = []

    def new(self, name: str, data: Any) -> Any:
        """Add an object to the scene."""
        made = bpy.data.objects.new(name, data)
        self.scene.collection.objects.link(made)
        return made

    def render(self, request: dict[str, Any]) -> None:
        """Render a request to its file."""
        self.place(request)
        self.aim(request["camera"], request["size"])
        self.light(request["lighting"])
        self.configure(request)
        bpy.ops.render.render(write_still=True)

    def place(self, request: dict[str, Any]) -> None:
        """Place the instances: in the same order always, so that an image depends on its scene alone."""
        bpy.data.batch_remove(self.objects)
        self.objects = []
        rows = zip(request["numbers"], request["meshes"], request["transforms"], request["colours"])  # noqa: B905
        for number, mesh, transform, colour in rows:
            if mesh not in self.meshes:
                self.meshes[mesh] = self.read_mesh(mesh)
            data, casts_shadow = self.meshes[mesh]
            placed = self.new(str(number), data)
            placed.matrix_world = mathutils.Matrix(transform)
            placed.color = (*colour, 1.0)
            placed.visible_shadow = casts_shadow
            placed.pass_index = number + 1
            self.objects.append(placed)

    def aim(self, camera: dict[str, Any], size: list[int]) -> None:
        """Set the camera: focal lengths, principal point, pose."""
        (height, width), (fx, fy), (cx, cy) = size, camera["focal"], camera["centre"]
        data, render, aspect = self.camera.data, self.scene.render, fx / fy
        data.sensor_fit, data.sensor_width = "HORIZONTAL", 36.0
        data.lens = 36.0 * fx / width
        data.shift_x, data.shift_y = (width / 2 - cx) / width, (cy - height / 2) * aspect / width
        data.clip_start, data.clip_end = camera["near"], 1e5
        self.camera.matrix_world = mathutils.Matrix(camera["matrix"])
        render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
        render.pixel_aspect_x, render.pixel_aspect_y = max(1.0, 1 / aspect), max(1.0, aspect)

    def light(self, lighting: dict[str, Any]) -> None:
        """Set sun, sky and haze."""
        direction, colour = mathutils.Vector(lighting["sun"]).normalized(), lighting["sun_colour"]
        strength = max(colour)
        self.sun.rotation_mode = "QUATERNION"
        self.sun.rotation_quaternion = direction.to_track_quat("Z", "Y")
        # of an irradiance of pi, a matt surface reflects a radiance of its own colour
        self.sun.data.energy = math.pi * strength
        self.sun.data.color = [value / strength if strength else 1.0 for value in colour]
        penumbra = 2 * math.atan(lighting["softness"] / OCCLUDER_DISTANCE)
        self.sun.data.angle = max(MIN_SUN_ANGLE, penumbra)
        tree = self.world.node_tree
        set_value(tree, "sun", list(direction))
        for name in ("sun_colour", "ambient", "bounce", "horizon", "zenith"):
            set_value(tree, name, lighting[name])
        set_value(self.haze, "fog", lighting["fog"])
        set_value(self.haze, "fog_colour", [value**2 for value in lighting["fog_colour"]])

    def configure(self, request: dict[str, Any]) -> None:
        """Set how to render, and what to write."""
        render, cycles, index = self.scene.render, self.scene.cycles, request["index"]
        render.engine = "CYCLES"
        render.use_persistent_data = True
        render.threads_mode, render.threads = "FIXED", request["threads"]
        render.use_compositing = render.use_sequencer = False
        cycles.device = choose_device(request["device"])
        cycles.samples, cycles.seed = 1 if index else request["samples"], 0
        cycles.use_adaptive_sampling = False
        cycles.use_denoising = request["denoise"] and not index
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.max_bounces = cycles.diffuse_bounces = cycles.glossy_bounces = 0 if index else request["bounces"]
        cycles.pixel_filter_type = "BOX" if index else "BLACKMAN_HARRIS"
        cycles.filter_width = 0.01 if index else 1.5
        self.scene.view_layers[0].use_pass_object_index = index
        settings = render.image_settings
        if hasattr(settings, "media_type"):  # from Blender 5.0 on
            settings.media_type = "MULTI_LAYER_IMAGE"
        settings.file_format = "OPEN_EXR_MULTILAYER"
        settings.color_depth, settings.exr_codec = "32", "NONE"
        if hasattr(settings, "use_exr_interleave"):  # one part, as older versions write
            settings.use_exr_interleave = True
        render.use_file_extension = False
        render.filepath = request["file"]

    def read_mesh(self, number: int) -> tuple[Any, bool]:
        """Read a mesh of the library; also return whether it casts a shadow."""
        with np.load(f"{self.library}/{number}.npz") as file:
            of = dict(file)
        mesh, triangles = bpy.data.meshes.new(str(number)), of["triangles"]
        mesh.vertices.add(len(of["vertices"]))
        mesh.vertices.foreach_set("co", of["vertices"].ravel())
        mesh.loops.add(triangles.size)
        mesh.loops.foreach_set("vertex_index", triangles.ravel())
        mesh.polygons.add(len(triangles))
        mesh.polygons.foreach_set("loop_start", np.arange(0, triangles.size, 3, dtype=np.int32))
        mesh.uv_layers.new().data.foreach_set("uv", of["uv"][triangles.ravel()].ravel())
        for name, kind, key in (("colour", "FLOAT_VECTOR", "vector"), ("paint", "FLOAT", "value")):
            mesh.attributes.new(name, kind, "POINT").data.foreach_set(key, of[name].ravel())
        mesh.attributes.new("gloss", "FLOAT", "POINT").data.foreach_set("value", of["gloss"])
        names, slots = np.unique(of["textures"][of["texture"]], return_inverse=True)
        glossy = bool(of["gloss"].any())
        for name in names.tolist():
            mesh.materials.append(self.material(name, glossy))
        mesh.polygons.foreach_set("material_index", slots.ravel().astype(np.int32))
        mesh.update(calc_edges=True)
        mesh.shade_smooth()
        mesh.normals_split_custom_set_from_vertices(of["normals"].tolist())
        return mesh, bool(of["casts_shadow"])

    def material(self, texture: str, glossy: bool) -> Any:
        """Return the material with a texture, named by its file, or without one."""
        if (texture, glossy) not in self.materials:
            made = bpy.data.materials.new(texture or "plain")
            made.use_nodes = True
            made.cycles.emission_sampling = "NONE"  # haze is no lamp
            image = bpy.data.images.load(f"{self.library}/{texture}", check_existing=True) if texture else None
            build_material(made.node_tree, image, glossy, self.haze)
            self.materials[texture, glossy] = made
        return self.materials[texture, glossy]


def build_material(tree: Any, image: Any, glossy: bool, haze: Any) -> None:
    """Build the rasteriser's material: a colour with paint and texture in linear light, matt or partly a mirror."""
    nodes = Nodes(tree)
    tint = nodes.add("ObjectInfo", output="Color")  # in linear light
    paint = nodes.scaled(nodes.vector("SUBTRACT", tint, (1.0, 1.0, 1.0)), nodes.attribute("paint", "Fac"))
    colour = nodes.attribute("colour", "Vector")
    colour = nodes.vector("MULTIPLY", colour, nodes.vector("ADD", paint, (1.0, 1.0, 1.0)))
    if image is not None:
        image.colorspace_settings.name = "Non-Color"
        texel = nodes.add("TexImage", image=image, output="Color")
        colour = nodes.vector("MULTIPLY", colour, nodes.vector("MULTIPLY", texel, texel))
    surface = nodes.add("BsdfDiffuse", colour)
    if glossy:
        edge = nodes.math("POWER", nodes.add("LayerWeight", 0.5, output="Facing"), 5.0)
        mirror = nodes.math("MULTIPLY_ADD", edge, 0.94, 0.06)
        mirror = nodes.math("MULTIPLY", mirror, nodes.attribute("gloss", "Fac"))
        polished = nodes.add("BsdfAnisotropic", (1.0, 1.0, 1.0, 1.0), ROUGHNESS)
        surface = nodes.add("MixShader", mirror, surface, polished)
    surface = nodes.add("MixShader", None, surface, None)
    mixed, air = surface.node, tree.nodes.new("ShaderNodeGroup")
    air.node_tree = haze
    tree.links.new(air.outputs[0], mixed.inputs[0])
    tree.links.new(air.outputs[1], mixed.inputs[2])
    nodes.add("OutputMaterial", surface)


def build_haze(tree: Any) -> None:
    """Build the haze between the camera and a surface: its opacity, and the light that it adds."""
    tree.interface.new_socket("opacity", in_out="OUTPUT", socket_type="NodeSocketFloat")
    tree.interface.new_socket("light", in_out="OUTPUT", socket_type="NodeSocketShader")
    nodes = Nodes(tree)
    distance = nodes.add("CameraData", output="View Distance")
    depth = nodes.math("MULTIPLY", distance, nodes.number("fog"))
    clear = nodes.math("EXPONENT", nodes.math("MULTIPLY", depth, -1.0))
    seen = nodes.add("LightPath", output="Is Camera Ray")
    opacity = nodes.math("MULTIPLY", nodes.math("SUBTRACT", 1.0, clear), seen)
    light = nodes.add("Emission", nodes.value("fog_colour"))
    output = tree.nodes.new("NodeGroupOutput")
    tree.links.new(opacity, output.inputs[0])
    tree.links.new(light, output.inputs[1])


def build_sky(tree: Any) -> None:
    """Build the rasteriser's sky: for the camera and mirrors a gradient with the sun, for surfaces even light."""
    nodes = Nodes(tree)
    ray = nodes.add("TexCoord", output="Generated")
    up = nodes.add("SeparateXYZ", ray, output="Z")
    low = nodes.math("POWER", nodes.math("SUBTRACT", 1.0, nodes.add("Clamp", up, 0.0, 1.0)), 4.0)
    zenith = nodes.value("zenith")
    shown = nodes.vector("SUBTRACT", nodes.value("horizon"), zenith)
    shown = nodes.vector("ADD", zenith, nodes.scaled(shown, low))
    sky = nodes.vector("MULTIPLY", shown, shown)
    near = nodes.add("VectorMath", ray, nodes.value("sun"), operation="DOT_PRODUCT", output="Value")
    ahead = nodes.math("MAXIMUM", near, 0.0)
    halo = nodes.math("MULTIPLY", nodes.math("POWER", ahead, 60.0), 0.25)
    glow = nodes.math("MULTIPLY_ADD", nodes.math("POWER", ahead, 2000.0), 0.5, halo)
    disc = nodes.math("MULTIPLY_ADD", nodes.math("GREATER_THAN", near, 0.99996), 4.0, glow)
    path = nodes.add("LightPath", output="Is Camera Ray").node
    disc = nodes.math("MULTIPLY", disc, path.outputs["Is Camera Ray"])  # mirrors see the lamp
    sky = nodes.vector("ADD", sky, nodes.scaled(nodes.value("sun_colour"), disc))
    above = nodes.math("GREATER_THAN", up, 0.0)
    below = nodes.scaled(nodes.value("bounce"), nodes.math("SUBTRACT", 1.0, above))
    even = nodes.vector("ADD", nodes.scaled(nodes.value("ambient"), above), below)
    mirrored = nodes.math("MULTIPLY", path.outputs["Is Glossy Ray"], above)
    direct = nodes.math("MAXIMUM", path.outputs["Is Camera Ray"], mirrored)
    light = nodes.vector("ADD", even, nodes.scaled(nodes.vector("SUBTRACT", sky, even), direct))
    nodes.add("OutputWorld", nodes.add("Background", light))


def choose_device(name: str) -> str:
    """Enable the devices of a kind for Cycles; return its word for them.

    Raises:
        ValueError: If there is none.
    """
    if name == "cpu":
        return "CPU"
    preferences = bpy.context.preferences.addons["cycles"].preferences
    try:
        preferences.compute_device_type = name.upper()
    except TypeError as error:
        raise ValueError(f"this Blender can't compute with {name}") from error
    preferences.refresh_devices()
    found = [device for device in preferences.devices if device.type == name.upper()]
    for device in preferences.devices:
        device.use = device in found
    if not found:
        raise ValueError(f"Cycles finds no device for {name} here: set device to cpu, or to what there is")
    return "GPU"


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what Blender itself prints must not get into the middle of an answer
    stage: Stage | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if PROBLEM:
                raise RuntimeError(PROBLEM)
            if stage is None or stage.library != request["library"]:
                stage = Stage(request["library"])
            stage.render(request)
            answer = {"blender": bpy.app.version_string}
        except Exception as error:  # the caller reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
