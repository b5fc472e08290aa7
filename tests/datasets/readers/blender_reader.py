"""Import a GLB with Blender's own importer, and write what it has found: triangles in the world's axes, camera and sun.

Run by a Python interpreter that has bpy: python blender_reader.py SCENE.glb OUTPUT_FOLDER HEIGHT WIDTH
"""

import json
import sys
from pathlib import Path

import bpy
import numpy as np

source, output = map(Path, sys.argv[1:3])
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.resolution_y, bpy.context.scene.render.resolution_x = map(int, sys.argv[3:])
bpy.ops.import_scene.gltf(filepath=str(source))


def plain(value: object) -> object:
    """Return a custom property as plain values."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return value.to_list() if hasattr(value, "to_list") else value


def way(thing: bpy.types.Object) -> list[str]:
    """Return the names of an object and of all above it."""
    return [thing.name, *(way(thing.parent) if thing.parent else [])]


def triangles(thing: bpy.types.Object) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices of a mesh in the world's axes, and its triangles."""
    mesh = thing.data
    mesh.calc_loop_triangles()
    vertices, faces = np.empty(3 * len(mesh.vertices)), np.empty(3 * len(mesh.loop_triangles), int)
    mesh.vertices.foreach_get("co", vertices)
    mesh.loop_triangles.foreach_get("vertices", faces)
    matrix = np.array(thing.matrix_world)
    return vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3], faces.reshape(-1, 3)


arrays, about = {}, {"meshes": [], "properties": {}}
for thing in bpy.data.objects:
    about["properties"][thing.name] = {key: plain(value) for key, value in thing.items()}
    if thing.type == "MESH":
        arrays[f"vertices{len(about['meshes'])}"], arrays[f"faces{len(about['meshes'])}"] = triangles(thing)
        about["meshes"].append(way(thing))
    elif thing.type == "CAMERA":
        arrays["camera"] = np.array(thing.matrix_world)
        about["camera"] = {key: plain(value) for key, value in thing.data.items()}
        corner = thing.data.view_frame(scene=bpy.context.scene)[0]
        about["view"] = [abs(corner.x / corner.z), abs(corner.y / corner.z)]
    elif thing.type == "LIGHT" and thing.data.type == "SUN":
        arrays["sun"] = np.array(thing.matrix_world)[:3, 2]
np.savez(output / f"{source.stem}.npz", **arrays)
(output / f"{source.stem}.json").write_text(json.dumps(about))
