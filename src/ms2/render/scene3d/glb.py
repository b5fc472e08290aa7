"""GLB files (binary glTF 2.0), as meshes in glTF's axes."""

import base64
import json
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import numpy as np
from jaxtyping import Float, Int, Num

from ms2.render.scene3d.mesh_parts import (
    MeshFileError,
    PartMaterial,
    Wrapping,
    build_part,
    decode_texture,
    find_reference,
    read_reference,
)
from ms2.render.scene3d.meshes import Mesh

COMPONENTS: dict[int, Any] = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
"""Data types by glTF's numbers of component types."""
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
"""Numbers of components by type of accessor."""
MAX_COUNT = 2**26
"""Largest number of elements of an accessor."""
WRAPPINGS: dict[int, Wrapping] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
TRIANGLES, STRIP, FAN = 4, 5, 6
"""Modes of primitives that are surfaces; others are points and lines."""
READ_EXTENSIONS = {
    "EXT_texture_avif",
    "EXT_texture_webp",
    "KHR_mesh_quantization",
    "KHR_node_visibility",
    "KHR_texture_transform",
}
UNSEEN_EXTENSIONS = ("KHR_materials_", "KHR_lights_", "EXT_lights_", "KHR_animation_", "KHR_xmp")
"""Prefixes of extensions that change neither geometry nor base colour."""
SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"


class GLBFile:
    """The parts of a GLB file.

    Everything that determines geometry or base colour is read, or refused by name; transparency, further textures,
    skins' poses and animations are not used.

    Args:
        data: The file.
        folder: Its folder, for the files that it names.
        paint_materials: Names of materials that the instance's colour tints.

    Raises:
        MeshFileError: If it is no complete GLB file, or requires an extension that is not read.
    """

    def __init__(self, data: bytes, folder: Path, paint_materials: Collection[str] = ()) -> None:
        self.folder, self.paint_materials = folder, paint_materials
        if data[:4] != b"glTF":
            raise MeshFileError("is no GLB file: it does not begin with 'glTF'")
        version, length = struct.unpack_from("<II", data + bytes(12), 4)
        if version != 2 and len(data) > 8:
            raise MeshFileError(f"cannot be read as GLB: its version is {version}, not 2. Export it as glTF 2.0.")
        if len(data) < max(length, 20):
            wanted = max(length, 20)
            raise MeshFileError(
                f"cannot be read as GLB: it is cut off after {len(data)} of {wanted} bytes. Fetch or export it again."
            )
        chunks: dict[bytes, bytes] = {}
        start = 12
        while start + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, start)
            chunks.setdefault(kind, data[start + 8 : start + 8 + size])
            start += 8 + size
        self.json: dict[str, Any] = json.loads(chunks[b"JSON"], parse_constant=_refuse_constant)
        self.binary = chunks.get(b"BIN\0")
        refused = [name for name in self.json.get("extensionsRequired", []) if not _is_read(name)]
        if refused:
            raise MeshFileError(
                f"requires {' and '.join(refused)}, which is not supported. Export it without compression, with PNG or "
                "JPEG textures and metallic-roughness materials."
            )
        self.left_out: list[str] = []

    def parts(self) -> Iterator[tuple[str, Mesh, Float[np.ndarray, "4 4"]]]:
        """Iterate over names, meshes, and the transforms of their nodes."""
        for node, matrix in self._nodes():
            mesh = self._item("meshes", node["mesh"])
            name = mesh.get("name") or node.get("name") or f"mesh {node['mesh']}"
            for primitive in mesh["primitives"]:
                if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN):
                    self.left_out.append(f"points or lines of {name!r}")
                    continue
                yield name, self._part(primitive, name, node.get("weights", mesh.get("weights", []))), matrix

    def _nodes(self) -> Iterator[tuple[dict[str, Any], Float[np.ndarray, "4 4"]]]:
        """Iterate over the visible nodes of the scene that have a mesh, with their transforms."""
        if "nodes" not in self.json:  # a library of meshes
            yield from (({"mesh": index}, np.eye(4)) for index in range(len(self.json.get("meshes", []))))
            return
        nodes = self.json["nodes"]
        if self.json.get("scenes"):
            roots = self._item("scenes", self.json.get("scene", 0)).get("nodes", [])
        else:
            roots = sorted(set(range(len(nodes))) - {child for node in nodes for child in node.get("children", [])})
        waiting, seen = [(root, np.eye(4)) for root in reversed(roots)], set()
        while waiting:
            index, parent = waiting.pop()
            if index in seen:
                raise MeshFileError(f"has node {index} at several places of its tree. Export it again.")
            seen.add(index)
            node = self._item("nodes", index)
            extensions = node.get("extensions", {})
            if not extensions.get("KHR_node_visibility", {}).get("visible", True):
                continue
            if "EXT_mesh_gpu_instancing" in extensions:
                raise MeshFileError(
                    "uses EXT_mesh_gpu_instancing, which is not supported. Export it without instances."
                )
            matrix = parent @ _local_matrix(node)
            if not np.isfinite(matrix).all():
                raise MeshFileError(f"has a transform of node {index} that is not finite. Export it again.")
            if "mesh" in node:
                yield node, matrix
            waiting += [(child, matrix) for child in reversed(node.get("children", []))]

    def _part(self, primitive: dict[str, Any], name: str, weights: list[float]) -> Mesh:
        """Build the mesh of a primitive, with its morph targets at their default weights."""
        attributes = primitive["attributes"]
        position = self._item("accessors", attributes["POSITION"])
        for extension in ("KHR_draco_mesh_compression", "EXT_meshopt_compression"):
            if extension in primitive.get("extensions", {}) and "bufferView" not in position:
                raise MeshFileError(f"has {name!r} compressed by {extension}. Export it without compression.")
        found = {key: self.accessor(index) for key, index in attributes.items() if not key.startswith("_")}
        for target, weight in zip(primitive.get("targets", []), weights, strict=False):
            for key, index in target.items():
                if weight and key in found and key != "TANGENT":
                    found[key] = found[key] + weight * self.accessor(index)
        vertices = found["POSITION"]
        for key, values in found.items():
            if len(values) != len(vertices):
                raise MeshFileError(
                    f"has {len(values)} values of {key} for the {len(vertices)} vertices of {name!r}. Export it again."
                )
        material, texcoord, transform = self._material(primitive.get("material"))
        uv = found.get(f"TEXCOORD_{texcoord}")
        if material.texture is not None and uv is None:
            raise MeshFileError(
                f"has no TEXCOORD_{texcoord} in {name!r}, which the texture of the material {material.name!r} needs. "
                "Unwrap it, or remove the texture."
            )
        return build_part(
            vertices[:, :3].astype(float),
            self._triangles(primitive, name, len(vertices)),
            found["NORMAL"].astype(float) if "NORMAL" in found else None,
            None if uv is None else uv @ transform[:2, :2].T + transform[:2, 2],
            found["COLOR_0"][:, :3].astype(float) if "COLOR_0" in found else None,
            material,
            self.paint_materials,
        )

    def _triangles(self, primitive: dict[str, Any], name: str, number: int) -> Int[np.ndarray, "t 3"]:
        """Return the triangles of a primitive, which may be a list, a strip or a fan."""
        corners = self.accessor(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(number)
        corners = corners.astype(np.int64)
        if len(corners) and corners.max() >= number:
            raise MeshFileError(
                f"has triangles of {name!r} with vertex {corners.max()}, but {number} vertices. Export it again."
            )
        mode = primitive.get("mode", TRIANGLES)
        if mode == TRIANGLES:
            return corners[: len(corners) // 3 * 3].reshape(-1, 3)
        i = np.arange(max(0, len(corners) - 2))
        if mode == FAN:
            return corners[np.stack([i + 1, i + 2, 0 * i], 1)]
        return corners[np.stack([i, i + 1 + i % 2, i + 2 - i % 2], 1)]

    # -- materials -------------------------------------------------------------------------------------

    def _material(self, index: int | None) -> tuple[PartMaterial, int, Float[np.ndarray, "3 3"]]:
        """Return a material, the number of its texture coordinates, and their transform."""
        if index is None:
            return PartMaterial(), 0, np.eye(3)
        material = self._item("materials", index)
        name = material.get("name", f"material {index}")
        if "pbrMetallicRoughness" not in material and SPECULAR_GLOSSINESS in material.get("extensions", {}):
            raise MeshFileError(
                f"has the material {name!r} in {SPECULAR_GLOSSINESS} alone, which is not supported. Export it with "
                "metallic-roughness materials."
            )
        surface = material.get("pbrMetallicRoughness", {})
        red, green, blue = map(float, surface.get("baseColorFactor", (1, 1, 1, 1))[:3])
        colour = (red, green, blue)
        gloss = float(np.clip(1 - surface.get("roughnessFactor", 1.0), 0, 1)) ** 2
        use = surface.get("baseColorTexture")
        if use is None:
            return PartMaterial(name, colour, gloss), 0, np.eye(3)
        transform = use.get("extensions", {}).get("KHR_texture_transform", {})
        texture = self._item("textures", use["index"])
        sampler = self._item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrapping = WRAPPINGS[sampler.get("wrapS", 10497)], WRAPPINGS[sampler.get("wrapT", 10497)]
        image = self._image(texture, f"of the material {name!r}")
        texcoord = transform.get("texCoord", use.get("texCoord", 0))
        return PartMaterial(name, colour, gloss, image, wrapping), texcoord, _texture_matrix(transform)

    def _image(self, texture: dict[str, Any], use: str) -> Any:
        extensions = texture.get("extensions", {})
        readable = [name for name in ("EXT_texture_webp", "EXT_texture_avif") if name in extensions]
        source = extensions[readable[0]]["source"] if readable else texture.get("source")
        if source is None:
            what = " and ".join(extensions) or "nothing"
            raise MeshFileError(f"has a texture {use} that is given as {what} alone. Export it as PNG or JPEG.")
        image = self._item("images", source)
        if "bufferView" in image:
            kind = image.get("mimeType", "an unknown type")
            label = f"{image['name']!r}" if "name" in image else f"{source}"
            return decode_texture(self._view(image["bufferView"]), f"{label} ({kind}, embedded) {use}")
        uri = image["uri"]
        if uri.startswith("data:"):
            return decode_texture(_decode_uri(uri), f"{source} (embedded) {use}")
        return decode_texture(read_reference(self.folder, uri, "texture"), find_reference(self.folder, uri))

    def _item(self, kind: str, index: int) -> Any:
        items = self.json.get(kind, [])
        if not 0 <= index < len(items):
            raise MeshFileError(f"refers to number {index} of its {len(items)} {kind}. Export it again.")
        return items[index]

    # -- buffers ---------------------------------------------------------------------------------------

    def accessor(self, index: int) -> Num[np.ndarray, "n k"]:
        """Read an array; normalised integers become fractions.

        Raises:
            MeshFileError: If it reaches beyond its buffer.
        """
        facts = self._item("accessors", index)
        kind, width, count = np.dtype(COMPONENTS[facts["componentType"]]), WIDTHS[facts["type"]], facts["count"]
        if not 0 <= count <= MAX_COUNT:
            raise MeshFileError(f"has {count} elements in accessor {index}; at most {MAX_COUNT} are possible.")
        if "bufferView" in facts:
            values = self._array(facts["bufferView"], facts.get("byteOffset", 0), kind, count, width)
        else:
            values = np.zeros((count, width), kind)
        if "sparse" in facts:
            sparse = facts["sparse"]
            places, new = sparse["indices"], sparse["values"]
            place_kind = np.dtype(COMPONENTS[places["componentType"]])
            rows = self._array(places["bufferView"], places.get("byteOffset", 0), place_kind, sparse["count"], 1)
            values = values.copy()
            values[rows[:, 0]] = self._array(new["bufferView"], new.get("byteOffset", 0), kind, sparse["count"], width)
        if facts.get("normalized") and kind.kind != "f":
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def _array(self, view: int, offset: int, kind: Any, count: int, width: int) -> Any:
        row = kind.itemsize * width
        stride = self._item("bufferViews", view).get("byteStride") or row
        data = np.frombuffer(self._view(view), np.uint8)
        needed = offset + stride * (count - 1) + row if count else 0
        if offset < 0 or needed > len(data):
            raise MeshFileError(f"needs {needed} bytes of buffer view {view}, which has {len(data)}. Export it again.")
        rows = np.lib.stride_tricks.as_strided(data[offset:], (count, row), (stride, 1))
        return np.ascontiguousarray(rows).view(kind)

    def _view(self, index: int) -> bytes:
        view = self._item("bufferViews", index)
        if "EXT_meshopt_compression" in view.get("extensions", {}):
            raise MeshFileError("has data compressed by EXT_meshopt_compression. Export it without compression.")
        buffer = self._item("buffers", view["buffer"])
        if "uri" not in buffer:
            data = self.binary
            if data is None:
                raise MeshFileError("has no buffer: its binary part is missing. Export it again.")
        elif buffer["uri"].startswith("data:"):
            data = _decode_uri(buffer["uri"])
        else:
            data = read_reference(self.folder, buffer["uri"], "buffer")
        start = view.get("byteOffset", 0)
        return data[start : start + view["byteLength"]]


def _is_read(extension: str) -> bool:
    unseen = extension.startswith(UNSEEN_EXTENSIONS) and extension != SPECULAR_GLOSSINESS
    return extension in READ_EXTENSIONS or unseen


def _decode_uri(uri: str) -> bytes:
    header, _, content = uri.partition(",")
    return base64.b64decode(content) if header.endswith(";base64") else unquote_to_bytes(content)


def _refuse_constant(name: str) -> NoReturn:
    raise MeshFileError(f"has a number that is {name}. Export it again.")


def _local_matrix(node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    """Return a node's own transform, which is a matrix, or a scale, a rotation and a translation."""
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    rotation = np.array(node.get("rotation", (0, 0, 0, 1)), float)
    x, y, z, w = rotation / max(float(np.linalg.norm(rotation)), 1e-12)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), float)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _texture_matrix(transform: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
    """Return the matrix of KHR_texture_transform: a scale, then a rotation, then an offset."""
    angle = transform.get("rotation", 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    (a, b), (x, y) = transform.get("scale", (1, 1)), transform.get("offset", (0, 0))
    return np.array([[cos * a, sin * b, x], [-sin * a, cos * b, y], [0, 0, 1]], float)
