"""Writing of one scene as a binary glTF 2.0 file, which holds all that it needs."""

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
from jaxtyping import Float

from ms2.render.scene3d.export.parts import MeshPart, split_mesh
from ms2.render.scene3d.export.scene import ScenePlan

FLOAT, UNSIGNED_SHORT, UNSIGNED_INT = 5126, 5123, 5125
"""glTF's numbers of component types."""
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
"""glTF's numbers of what a buffer view holds: attributes of vertices, or indices."""
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""From x right, y forward, z up to glTF's axes with y up, in which forward is -z."""


class GLBWriter:
    """Writes scenes as GLB files.

    Meshes that occur several times are stored once; parts that the instance's colour tints share all but the colours.
    glTF's cameras have their principal point in the middle: the exact intrinsics are in the camera's ``extras``, the
    sky, the haze and the camera's processing, for which glTF has no words, in those of the scene's root.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[MeshPart]] = {}  # of each mesh, kept from scene to scene
        self._images: dict[int, tuple[bytes, bytes]] = {}  # hash and PNG of each texture by its id

    def write(self, scene: ScenePlan) -> bytes:
        """Convert a scene to the content of a GLB file."""
        file = _File()
        root = self._root(file, scene)
        document = {
            "asset": {"version": "2.0", "generator": "ms2"},
            "extensionsUsed": ["KHR_lights_punctual"],
            "extensions": {"KHR_lights_punctual": {"lights": [_sun(scene)]}},
            "scene": 0,
            "scenes": [{"name": scene.name, "nodes": [root]}],
            "cameras": [_camera(scene)],
            **file.tables(),
        }
        return _pack(document, bytes(file.binary))

    def _root(self, file: "_File", scene: ScenePlan) -> int:
        """Add the nodes of a scene; return the root's index."""
        groups: dict[str, list[int]] = {}
        for placed in scene.placements:
            node: dict[str, Any] = {
                "name": placed.name,
                "matrix": _matrix(placed.transform),
                "extras": dict(placed.properties),
            }
            node["mesh"] = self._mesh(file, scene, placed.mesh, placed.colour)
            groups.setdefault(placed.group, []).append(file.add("nodes", node))
        children = [file.add("nodes", {"name": name, "children": nodes}) for name, nodes in groups.items()]
        children.append(file.add("nodes", {"name": "camera", "matrix": _matrix(scene.camera), "camera": 0}))
        light = {"extensions": {"KHR_lights_punctual": {"light": 0}}}
        children.append(file.add("nodes", {"name": "sun", "matrix": _matrix(scene.sun_rotation), **light}))
        extras = {"lighting": dict(scene.lighting), "processing": dict(scene.processing)}
        return file.add(
            "nodes", {"name": scene.name, "matrix": _matrix(Z_UP_TO_Y_UP), "children": children, "extras": extras}
        )

    def _mesh(self, file: "_File", scene: ScenePlan, name: str, tint: tuple[float, float, float]) -> int:
        """Return the index of a mesh in the instance's colour; add it if it is new."""
        if name not in self._parts:
            self._parts[name] = split_mesh(scene.meshes[name])
        parts = self._parts[name]
        key = (name, *(tint if any(part.is_painted for part in parts) else ()))

        def make() -> dict[str, Any]:
            return {"name": name, "primitives": [self._primitive(file, name, part, tint) for part in parts]}

        return file.once("meshes", key, make)

    def _primitive(self, file: "_File", mesh: str, part: MeshPart, tint: tuple[float, float, float]) -> dict[str, Any]:
        key = (mesh, part.name)
        attributes = {
            "POSITION": file.accessor((*key, "POSITION"), part.vertices),
            "NORMAL": file.accessor((*key, "NORMAL"), part.normals),
        }
        if part.uv is not None:
            attributes["TEXCOORD_0"] = file.accessor((*key, "uv"), part.uv * [1, -1] + [0, 1])  # from the upper left
        colour = part.linear_colour(tint)
        if not part.is_uniform:
            attributes["COLOR_0"] = file.colours((*key, *(tint if part.is_painted else ())), colour)
        factor = colour[0] if part.is_uniform else np.ones(3)
        return {
            "attributes": attributes,
            "indices": file.accessor((*key, "triangles"), part.triangles),
            "material": self._material(file, part, factor),
        }

    def _material(self, file: "_File", part: MeshPart, factor: Float[np.ndarray, "3"]) -> int:
        """Return the index of a part's material; equal ones are stored once."""
        surface: dict[str, Any] = {
            "baseColorFactor": [*factor.round(6).tolist(), 1.0],
            "metallicFactor": 0.0,
            "roughnessFactor": round(part.roughness, 6),
        }
        if part.texture is not None:
            surface["baseColorTexture"] = {"index": self._texture(file, part)}
        key = json.dumps(surface)
        name = f"material_{len(file.lists.get('materials', []))}"
        return file.once("materials", key, lambda: {"name": name, "doubleSided": True, "pbrMetallicRoughness": surface})

    def _texture(self, file: "_File", part: MeshPart) -> int:
        if id(part.texture) not in self._images:  # parts are kept, so that no other texture gets its id
            png = part.png()
            self._images[id(part.texture)] = hashlib.blake2b(png, digest_size=16).digest(), png
        key, png = self._images[id(part.texture)]

        def make() -> dict[str, Any]:
            image = {"name": key.hex(), "mimeType": "image/png", "bufferView": file.view(png)}
            return {"source": file.add("images", image), "sampler": file.once("samplers", "repeat", dict)}

        return file.once("textures", key, make)


class _File:
    """The lists and the binary chunk of a file that is being made."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self._known: dict[Any, int] = {}

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append an item to a list; return its index."""
        found = self.lists.setdefault(kind, [])
        found.append(item)
        return len(found) - 1

    def once(self, kind: str, key: Any, make: Any) -> int:
        """Return the index of an item with a key; make and append it if it is new."""
        if (kind, key) not in self._known:
            self._known[kind, key] = self.add(kind, make())
        return self._known[kind, key]

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes to the binary chunk; return the index of their view."""
        self.binary += bytes(-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)}
        self.binary += content
        return self.add("bufferViews", view if target is None else view | {"target": target})

    def accessor(self, key: Any, values: np.ndarray) -> int:
        """Return the index of an array's accessor: indices if it holds whole numbers, else floats."""
        whole = np.issubdtype(values.dtype, np.integer)

        def make() -> dict[str, Any]:
            data = values.astype("<u4" if whole else "<f4")
            if whole:
                data = data.reshape(-1, 1)
            low, high = data.min(0).tolist(), data.max(0).tolist()
            return {
                "bufferView": self.view(data.tobytes(), ELEMENT_ARRAY_BUFFER if whole else ARRAY_BUFFER),
                "componentType": UNSIGNED_INT if whole else FLOAT,
                "count": len(data),
                "type": {1: "SCALAR", 2: "VEC2", 3: "VEC3"}[data.shape[1]],
                "min": low,
                "max": high,
            }

        return self.once("accessors", key, make)

    def colours(self, key: Any, linear: Float[np.ndarray, "v 3"]) -> int:
        """Return the index of an accessor of vertex colours: 16 bits each, with an opacity, as views are aligned."""

        def make() -> dict[str, Any]:
            values = np.column_stack([linear, np.ones(len(linear))])
            data = (values.clip(0, 1) * 65535).round().astype("<u2")
            view = self.view(data.tobytes(), ARRAY_BUFFER)
            about = {"componentType": UNSIGNED_SHORT, "normalized": True, "count": len(data), "type": "VEC4"}
            return {"bufferView": view, **about}

        return self.once("accessors", ("colour", *key), make)

    def tables(self) -> dict[str, Any]:
        """Return all lists, with the buffer."""
        return {**self.lists, "buffers": [{"byteLength": len(self.binary)}]}


def _camera(scene: ScenePlan) -> dict[str, Any]:
    """Describe the camera: the field of view of an image whose principal point is in its middle, and the exact one."""
    (height, width), (fx, fy), (cx, cy) = scene.size, scene.focal, scene.centre
    perspective = {
        "yfov": 2 * math.atan(height / (2 * fy)),
        "aspectRatio": (width / fx) / (height / fy),
        "znear": 0.1,
    }
    exact = {"width": width, "height": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
    # Blender's lens shift, in parts of the longer side
    shift = {"shift_x": (width / 2 - cx) / max(scene.size), "shift_y": (cy - height / 2) / max(scene.size)}
    return {"name": "camera", "type": "perspective", "perspective": perspective, "extras": exact | shift}


def _sun(scene: ScenePlan) -> dict[str, Any]:
    intensity, colour = scene.sun_illuminance
    return {"name": "sun", "type": "directional", "color": list(colour), "intensity": intensity}


def _matrix(matrix: Float[np.ndarray, "4 4"]) -> list[float]:
    """List a matrix column by column, as glTF does."""
    values: list[float] = matrix.T.reshape(-1).tolist()
    return values


def _pack(document: dict[str, Any], binary: bytes) -> bytes:
    """Join the JSON and the binary chunk."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
