"""Mesh files: what a GLB or OBJ file declares is honoured, or refused by name. GLB files are built byte by byte."""

import base64
import io
import json
import os
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from ms2.core.errors import UserError
from ms2.render.scene3d.mesh_files import load_mesh
from ms2.render.scene3d.meshes import Mesh
from ms2.render.scene3d.polygons import triangulate

DATA = os.environ.get("MS2_DATA")
SQUARE = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
FACES = np.uint16([[0, 1, 2], [0, 2, 3]])
SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
UV = np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])
"""From the upper left corner; `Mesh` counts from the lower left."""
NUMBERS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
WIDTHS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class GLB:
    """A GLB file of a square with a material."""

    def __init__(self, *, uv: bool = False) -> None:
        self.binary = b""
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "materials": [{"name": "skin", "pbrMetallicRoughness": {}}], "accessors": [], "bufferViews": [],
        }  # fmt: skip
        attributes = {"POSITION": self.add(SQUARE)} | ({"TEXCOORD_0": self.add(UV)} if uv else {})
        self.part: dict[str, Any] = {"attributes": attributes, "indices": self.add(FACES.reshape(-1, 1)), "material": 0}
        self.json["meshes"] = [{"name": "wall", "primitives": [self.part]}]
        self.surface: dict[str, Any] = self.json["materials"][0]["pbrMetallicRoughness"]

    def view(self, data: bytes, **facts: Any) -> int:
        self.binary += bytes(-len(self.binary) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **facts})
        self.binary += data
        return len(self.json["bufferViews"]) - 1

    def add(self, values: np.ndarray, **facts: Any) -> int:
        """Add an accessor."""
        count, width = values.shape
        facts |= {"componentType": NUMBERS[values.dtype.str[1:]], "type": WIDTHS[width], "count": count}
        self.json["accessors"].append({"bufferView": self.view(values.tobytes()), **facts})
        return len(self.json["accessors"]) - 1

    def texture(self, picture: bytes, **use: Any) -> None:
        """Give the material an embedded texture."""
        self.json |= {
            "images": [{"name": "bricks", "mimeType": "image/png", "bufferView": self.view(picture)}],
            "textures": [{"source": 0}],
        }
        self.surface["baseColorTexture"] = {"index": 0, **use}

    def load(self, folder: Path, **more: Any) -> Mesh:
        """Write the file and load it."""
        self.json["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + bytes(-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        (folder / "model.glb").write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return load_mesh(folder / "model.glb", **more)


def picture(kind: str = "png") -> bytes:
    """Two by two pixels: red, green, blue, white."""
    file = io.BytesIO()
    pixels = np.uint8([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]])
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "webp" else {}))
    return file.getvalue()


def area(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.triangles].swapaxes(0, 1)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def at(mesh: Mesh, values: Any) -> np.ndarray:
    """Values at the corners of `SQUARE`, whose x is mirrored and whose y becomes z."""
    places = np.stack([-mesh.vertices[:, 0], mesh.vertices[:, 2]], 1).round(3).tolist()
    return np.stack([np.asarray(values)[places.index(corner)] for corner in SQUARE[:, :2].tolist()])


@pytest.mark.skipif(not DATA, reason="MS2_DATA names no folder of data")
@pytest.mark.parametrize("name", ["kenney_carkit_v1/van", "quaternius_people/modular_men_Suit"])
def test_another_reader_finds_the_same_surfaces(name: str) -> None:
    """Their area, their middle and their mean colour."""
    trimesh = pytest.importorskip("trimesh")
    path = Path(DATA or "") / "assets3d" / f"{name}.glb"
    mesh, scene = load_mesh(path), trimesh.load_scene(path)
    found = trimesh.Trimesh(mesh.vertices * [-1, 1, 1], mesh.triangles, process=False)
    nodes = [scene.graph[node] for node in scene.graph.nodes_geometry]
    parts = [scene.geometry[part].copy().apply_transform(matrix) for matrix, part in nodes]
    assert area(mesh) == pytest.approx(sum(part.area for part in parts), rel=1e-4)
    middle = sum(part.triangles_center.T @ part.area_faces for part in parts)
    assert (found.triangles_center.T @ found.area_faces)[[0, 2, 1]] == pytest.approx(middle, rel=1e-3, abs=1e-3)
    factors = [part.visual.material.baseColorFactor for part in parts]
    linear = [np.ones(3) if factor is None else factor[:3] / 255 for factor in factors]
    colours = sum(np.sqrt(factor) * part.area for factor, part in zip(linear, parts, strict=True))
    shades = mesh.colour[mesh.triangles].mean(1).T @ found.area_faces
    assert shades == pytest.approx(colours, rel=0.02, abs=0.02)


# --- GLB: numbers ---


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_integer_texture_coordinates_are_fractions(kind: str, tmp_path: Path) -> None:
    glb, most = GLB(), np.iinfo(kind).max
    glb.part["attributes"]["TEXCOORD_0"] = glb.add((UV * most).astype(kind), normalized=True)
    glb.texture(picture())
    mesh = glb.load(tmp_path)
    assert at(mesh, mesh.uv) == pytest.approx(UV * [1, -1] + [0, 1])


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("width", [3, 4])
def test_vertex_colours_multiply_the_materials(kind: str, width: int, tmp_path: Path) -> None:
    """Both are linear; ours are display values."""
    glb, most = GLB(), 1 if kind == "f4" else np.iinfo(kind).max
    colours = (np.full((4, width), 0.2) * most).astype(kind)
    glb.part["attributes"]["COLOR_0"] = glb.add(colours, normalized=kind != "f4")
    glb.surface["baseColorFactor"] = [0.5, 1.0, 0.003, 1.0]
    assert np.square(glb.load(tmp_path).colour[0]) == pytest.approx([0.1, 0.2, 0.0006], rel=1e-3)
    del glb.part["material"]
    assert np.square(glb.load(tmp_path).colour[0]) == pytest.approx([0.2] * 3, rel=1e-3)


@pytest.mark.parametrize("factor", [0.0, 0.003, 1 / 255, 0.5, 1.0])
def test_a_colour_factor_is_a_fraction_however_small(factor: float, tmp_path: Path) -> None:
    glb = GLB()
    glb.surface["baseColorFactor"] = [factor, factor, factor, 1.0]
    assert np.square(glb.load(tmp_path).colour) == pytest.approx(factor, abs=1e-6)


def test_quantised_strided_and_sparse_positions(tmp_path: Path) -> None:
    glb = GLB()
    rows = np.zeros((4, 8), np.uint8)
    rows[:, :6] = (SQUARE * 32767).astype("<i2").view(np.uint8)
    index = len(glb.json["accessors"])
    glb.json["accessors"].append(
        {
            "bufferView": glb.view(rows.tobytes(), byteStride=8), "componentType": 5122, "type": "VEC3", "count": 4,
            "normalized": True,
            "sparse": {
                "count": 1, "indices": {"bufferView": glb.view(np.uint8([2]).tobytes()), "componentType": 5121},
                "values": {"bufferView": glb.view(np.int16([[32767, 32767, 32767]]).tobytes())},
            },
        }
    )  # fmt: skip
    glb.part["attributes"]["POSITION"] = index
    mesh = glb.load(tmp_path)
    assert mesh.vertices.max(0) == pytest.approx([0, 1, 1]) and mesh.vertices.min(0) == pytest.approx([-1, 0, 0])


@pytest.mark.parametrize(("mode", "order"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])])
def test_strips_and_fans_face_one_way(mode: int, order: list[int], tmp_path: Path) -> None:
    glb = GLB()
    glb.part |= {"mode": mode, "indices": glb.add(np.uint8(order).reshape(-1, 1))}
    mesh = glb.load(tmp_path)
    assert area(mesh) == pytest.approx(1) and mesh.normals == pytest.approx(np.tile([0, 1, 0], (6, 1)))


def test_morph_targets_have_their_default_weights(tmp_path: Path) -> None:
    glb = GLB()
    glb.part["targets"] = [{"POSITION": glb.add(SQUARE)}]
    glb.json["meshes"][0]["weights"] = [0.5]
    assert area(glb.load(tmp_path)) == pytest.approx(1.5**2)


def test_nodes_turn_scale_and_move(tmp_path: Path) -> None:
    glb = GLB()
    half = np.sqrt(0.5)
    glb.json["nodes"] = [
        {"children": [1], "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
        {"mesh": 0, "rotation": [0, half, 0, half], "scale": [2, 3, 1], "translation": [0, 1, 0]},
    ]
    mesh = glb.load(tmp_path)  # x becomes -z: backwards
    assert mesh.vertices.min(0) == pytest.approx([0, 3, 1], abs=1e-6)
    assert mesh.vertices.max(0) == pytest.approx([0, 5, 4], abs=1e-6)


def test_meshes_without_nodes_are_shown(tmp_path: Path) -> None:
    glb = GLB()
    del glb.json["nodes"], glb.json["scenes"], glb.json["scene"]
    assert area(glb.load(tmp_path)) == pytest.approx(1)


# --- GLB: textures ---


def test_a_texture_uses_its_own_coordinates(tmp_path: Path) -> None:
    glb = GLB(uv=True)
    glb.part["attributes"]["TEXCOORD_1"] = glb.add(UV / 2)
    glb.texture(picture(), texCoord=1)
    mesh = glb.load(tmp_path)
    assert at(mesh, mesh.uv) == pytest.approx(UV / 2 * [1, -1] + [0, 1])
    glb.surface["baseColorTexture"]["extensions"] = {"KHR_texture_transform": {"texCoord": 0}}
    mesh = glb.load(tmp_path)
    assert at(mesh, mesh.uv) == pytest.approx(UV * [1, -1] + [0, 1])
    glb.surface["baseColorTexture"]["extensions"]["KHR_texture_transform"]["texCoord"] = 7
    with pytest.raises(UserError, match=r"has no TEXCOORD_7 in 'wall', which the texture of the material 'skin' needs"):
        glb.load(tmp_path)


@pytest.mark.parametrize(
    ("transform", "place"),
    [
        ({"offset": [0.25, 0.5]}, (1.25, 0.5)),
        ({"scale": [2, 3]}, (2, 0)),
        ({"rotation": np.pi / 2}, (0, -1)),
        ({"offset": [0.5, 0], "rotation": np.pi / 2, "scale": [2, 1]}, (0.5, -2)),
    ],
)
def test_texture_transforms_are_applied(transform: dict[str, Any], place: tuple[float, float], tmp_path: Path) -> None:
    """The values for (1, 0) are those of Cesium's and Khronos's viewers; rotations are counter-clockwise on screen."""
    glb = GLB(uv=True)
    glb.json["extensionsRequired"] = ["KHR_texture_transform"]
    glb.texture(picture(), extensions={"KHR_texture_transform": transform})
    mesh = glb.load(tmp_path)
    assert at(mesh, mesh.uv)[2] == pytest.approx([place[0], 1 - place[1]], abs=1e-6)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (33071, [[[0, 255, 0]] * 2, [[255, 255, 255]] * 2]),
        (33648, [[[0, 255, 0], [255, 0, 0]], [[255] * 3, [0, 0, 255]]]),
    ],
    ids=["clamped", "mirrored"],
)
def test_textures_that_do_not_repeat(how: int, expected: list[Any], tmp_path: Path) -> None:
    glb = GLB()
    glb.part["attributes"]["TEXCOORD_0"] = glb.add(UV * np.float32([2, 1]))
    glb.texture(picture())
    glb.json["samplers"] = [{"wrapS": how, "wrapT": how}]
    glb.json["textures"][0]["sampler"] = 0
    mesh = glb.load(tmp_path)
    assert at(mesh, mesh.uv) == pytest.approx(UV * [1, -1] + [0, 1])
    assert mesh.textures[0][:, :2].tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    assert mesh.textures[0][:, 2:].tolist() == expected
    glb.part["attributes"]["TEXCOORD_0"] = glb.add(UV * np.float32([99, 1]))
    with pytest.raises(UserError, match=r"the material 'skin' that is not repeated .* over 99 times its size"):
        glb.load(tmp_path)


def test_webp_and_pictures_in_the_description_are_read(tmp_path: Path) -> None:
    glb = GLB(uv=True)
    glb.texture(picture("webp"))
    glb.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
    glb.json["extensionsRequired"] = ["EXT_texture_webp"]
    assert glb.load(tmp_path).textures[0][0, 0].tolist() == [255, 0, 0]
    glb.json["images"] = [{"uri": "data:image/png;base64," + base64.b64encode(picture()).decode()}]
    assert glb.load(tmp_path).textures[0][1, 0].tolist() == [0, 0, 255]
    glb.json["images"] = [{"uri": "data:image/png," + quote(picture())}]
    assert glb.load(tmp_path).textures[0][1, 0].tolist() == [0, 0, 255]


def test_sixteen_bit_pictures_are_scaled(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), 32896, np.uint16)).save(file, "png")
    glb = GLB(uv=True)
    glb.texture(file.getvalue())
    assert (glb.load(tmp_path).textures[0] == 128).all()


# --- GLB: what is refused ---


def _compress(glb: GLB) -> None:
    glb.part["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    del glb.json["accessors"][0]["bufferView"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.texture(picture()[:45]), r"'bricks' \(image/png, embedded\) of the material 'skin', which"),
        (lambda g: g.texture(b""), r"texture 'bricks' .* cannot be read as an image"),
        (lambda g: g.texture(b"\xabKTX 20\xbb\r\n\x1a\n"), r"'bricks' .* cannot be read .* Save it as PNG or JPEG"),
        (_compress, r"has 'wall' compressed by KHR_draco_mesh_compression\. Export it without compression"),
        (
            lambda g: g.json.update(extensionsRequired=["KHR_draco_mesh_compression"]),
            r"requires KHR_draco_mesh_compression, which is not supported",
        ),
        (
            lambda g: g.json.update(materials=[{"name": "a", "extensions": {SPECULAR_GLOSSINESS: {}}}]),
            r"the material 'a' in KHR_materials_pbrSpecularGlossiness alone",
        ),
        (
            lambda g: (g.texture(picture()), g.json.update(textures=[{"extensions": {"KHR_texture_basisu": {}}}])),
            r"a texture of the material 'skin' that is given as KHR_texture_basisu alone",
        ),
        (lambda g: g.surface.update(baseColorFactor=[255, 0, 0, 1]), r"base colour of the material 'skin' outside 0"),
        (lambda g: g.part.update(indices=g.add(np.uint8([[0], [1], [9]]))), r"of 'wall' with vertex 9, but 4"),
        (lambda g: g.json["nodes"].append(g.json["nodes"][0].update(children=[0])), r"node 0 at several places"),
        (lambda g: g.json["accessors"][0].update(count=99), r"needs 1188 bytes of buffer view 0, which has 48"),
        (lambda g: g.json["accessors"][0].update(count=10**12), r"1000000000000 elements in accessor 0"),
        (lambda g: g.part["attributes"].update(POSITION=g.add(SQUARE * np.float32(np.nan))), r"positions .* not fin"),
        (lambda g: g.json["nodes"][0].update(extensions={"EXT_mesh_gpu_instancing": {}}), r"EXT_mesh_gpu_instancing"),
        (lambda g: g.part.update(material=7), r"refers to number 7 of its 1 materials"),
        (lambda g: g.json["nodes"][0].update(mesh=-1), r"refers to number -1 of its 1 meshes"),
        (lambda g: g.surface.update(roughnessFactor=float("nan")), r"a number that is NaN"),
        (lambda g: g.json.update(meshes=[{}]), r"cannot be read as GLB \(KeyError"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(change: Any, message: str, tmp_path: Path) -> None:
    glb = GLB(uv=True)
    change(glb)
    with pytest.raises(UserError, match=rf"model\.glb .*{message}"):
        glb.load(tmp_path)


def test_extensions_with_a_fallback_are_not_refused(tmp_path: Path) -> None:
    glb = GLB(uv=True)
    glb.texture(picture())
    glb.json["textures"][0]["extensions"] = {"KHR_texture_basisu": {"source": 5}}
    glb.json["materials"][0]["extensions"] = {"KHR_materials_pbrSpecularGlossiness": {}, "KHR_materials_unlit": {}}
    glb.part["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {}}}
    glb.json["extensionsRequired"] = ["KHR_materials_unlit"]
    assert area(glb.load(tmp_path)) == pytest.approx(1)


@pytest.mark.parametrize("scale", [[0, 0, 0], [0, 1, 0]])
def test_a_part_of_scale_0_is_left_out(scale: list[float], tmp_path: Path) -> None:
    glb = GLB()
    glb.json["nodes"] = [{"mesh": 0}, {"mesh": 0, "scale": scale}]
    glb.json["scenes"][0]["nodes"] = [0, 1]
    with pytest.warns(UserWarning, match=r"model\.glb: left out 'wall', whose scale is 0"):
        assert area(glb.load(tmp_path)) == pytest.approx(1)
    glb.json["nodes"] = [{"mesh": 0, "scale": [2, 3, 0]}, {"mesh": 0}]
    mesh = glb.load(tmp_path)  # flat, but still there
    assert area(mesh) == pytest.approx(7) and np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1)


def test_points_and_lines_are_said_to_be_left_out(tmp_path: Path) -> None:
    glb = GLB()
    glb.json["meshes"][0]["primitives"].append({**glb.part, "mode": 1})
    with pytest.warns(UserWarning, match=r"left out points or lines of 'wall'"):
        assert area(glb.load(tmp_path)) == pytest.approx(1)


# --- OBJ ---


def load_obj(folder: Path, text: str, library: str | None = None) -> Mesh:
    (folder / "model.obj").write_text(text.replace(" / ", "\n"))
    if library is not None:
        (folder / "model.mtl").write_text(library)
    return load_mesh(folder / "model.obj", ("Paint",))


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("way", [1, -1])
def test_a_concave_polygon_has_its_area(first: int, way: int, tmp_path: Path) -> None:
    """From whichever corner and in whichever direction it is written."""
    corners = [1, 2, 3, 4, 5, 6][::way]
    face = " ".join(map(str, corners[first:] + corners[:first]))
    mesh = load_obj(tmp_path, f"v 2 0 0 / v 2 0 1 / v 1 0 1 / v 1 0 4 / v 0 0 4 / v 0 0 0 / f {face}")
    assert area(mesh) == pytest.approx(5) and len(mesh.triangles) == 4
    assert mesh.normals == pytest.approx(np.tile([0, 0, -way], (12, 1)))


def test_random_polygons_are_divided_without_overlap() -> None:
    """Star-shaped ones, in a random plane: the triangles' areas add up to the polygon's, and all turn its way."""
    draw = np.random.default_rng(0)
    for number in range(3, 23):
        angle = np.sort(draw.random(number)) * 2 * np.pi
        flat = np.stack([np.cos(angle), np.sin(angle)], 1) * draw.uniform(0.1, 1, (number, 1))
        turn = np.linalg.qr(draw.normal(size=(3, 3)))[0]
        x, y = flat.T
        expected = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
        triangles = triangulate((flat @ turn[:2]).tolist())
        signed = [np.linalg.det(flat[[b, c]] - flat[a]) / 2 for a, b, c in triangles]
        assert len(triangles) == number - 2
        if np.diff(angle, append=angle[0] + 2 * np.pi).max() < np.pi:  # the origin lies inside
            assert min(signed) >= 0 and sum(signed) == pytest.approx(expected)


def test_a_hole_that_a_seam_joins_stays_open() -> None:
    outer, inner = [(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (1, 3), (3, 3), (3, 1)]
    ring = [(*p, 0) for p in [*outer, outer[0], *inner, inner[0]]]
    signed = [np.linalg.det(np.array(ring)[[b, c], :2] - np.array(ring)[a, :2]) / 2 for a, b, c in triangulate(ring)]
    assert sum(signed) == pytest.approx(12) and min(signed) >= 0


@pytest.mark.parametrize(
    ("text", "library", "message"),
    [
        ("mtllib model.mtl / usemtl stele", "newmtl steel", r"'stele', .* in model\.mtl\. Did you mean 'steel'"),
        ("usemtl steel", None, r"'steel', which is not defined as no mtllib line"),
        ("usemtl steel", "newmtl steel", r"uses the material 'steel'"),
        ("mtllib model.mtl / usemtl a", "newmtl a\nKd 255 0 0", r"a base colour of the material 'a' outside 0 to 1"),
        ("mtllib model.mtl / usemtl a", "newmtl a\nKd xyz 1 1 1", r"\.mtl, whose line 2 has the colour 'xyz 1 1 1'"),
        ("mtllib model.mtl / usemtl a", "newmtl a\nmap_Kd a.png", r"needs the texture .*a\.png, which is not there"),
        ("mtllib model.mtl / usemtl a", "newmtl a\nmap_Kd -t 1 a.png", r"line 2 has a texture with -t 1, which is not"),
        ("mtllib model.mtl / usemtl a", "newmtl a\nmap_Kd -x 1 a.png", r"with the option '-x'"),
        ("mtllib model.mtl / usemtl a", "newmtl a\nmap_Kd -s 2", r"line 2 has the texture '-s 2' \(it names no file\)"),
        ("v 1 2", None, r"line 4 is 'v' '1 2' \(2 numbers instead of 3 to 7\)"),
        ("f 1 2 0", None, r"line 4 is 'f' '1 2 0' \(indices begin with 1\)"),
        ("f 1 2 -4", None, r"line 4 .*there are 3 v before it"),
        ("f 1/1 2/1 3/1", None, r"line 4 refers to vt 1 of 0"),
        ("surf 0 1 0 1 1 2 3 4", None, r"a curved surface \(surf\) in line 4\. Export it as polygons"),
        ("v nan 0 0 / f 1 2 4", None, r"positions of a part without a material that are not finite"),
    ],
)  # fmt: skip
def test_a_broken_obj_is_refused_by_name(text: str, library: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"model\.obj .*{message}"):
        load_obj(tmp_path, f"v 0 0 0 / v 1 0 0 / v 0 1 0 / {text} / f 1 2 3", library)


def test_names_and_numbers_of_an_obj_are_read_as_written(tmp_path: Path) -> None:
    """Names with spaces and number signs, relative indices, continued lines, vertex colours and texture options."""
    Image.open(io.BytesIO(picture())).save(tmp_path / "my bricks#1.png")
    library = "newmtl old wall#2\nKd 0.25 0.25 0.25\nmap_Kd -s 2 4 1 -o 0.5 -mm 0 1 my bricks#1.png\n"
    (tmp_path / "my wall.mtl").write_text(library, encoding="utf-8-sig")
    mesh = load_obj(
        tmp_path,
        "mtllib my wall.mtl # the materials / v 0 0 0 1 1 1 / v 1 0 0 1 1 1 / v 0 1 0 0.25 0.25 0.25 / "
        "vt 0 0 / vt 1 0 / vt 0 1 / usemtl  old  wall#2 / f -3/-3 \\\n -2/-2 -1/3",
    )
    order = np.argsort(mesh.uv[:, 0] + 0.01 * mesh.uv[:, 1])
    assert mesh.uv[order] == pytest.approx(np.array([[0.5, 0], [0.5, 4], [2.5, 0]]))
    assert mesh.colour[order, 0] == pytest.approx([0.5, 0.25, 0.5])


def test_encodings_of_an_obj(tmp_path: Path) -> None:
    """Line ends of any system; UTF-16 is refused."""
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "model.obj").write_bytes(text.replace("\n", end).encode())
        assert area(load_mesh(tmp_path / "model.obj")) == pytest.approx(0.5)
    (tmp_path / "model.obj").write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match=r"model\.obj cannot be read as OBJ: it is no text in UTF-8"):
        load_mesh(tmp_path / "model.obj")


def test_paint_needs_no_definition(tmp_path: Path) -> None:
    mesh = load_obj(tmp_path, "v 0 0 0 / v 1 0 0 / v 0 1 0 / usemtl Paint / f 1 2 3")
    assert (mesh.paint == 1).all() and (mesh.colour == 1).all()


def test_lines_of_an_obj_are_said_to_be_left_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"model\.obj: left out the point or line in line 4"):
        assert area(load_obj(tmp_path, "v 0 0 0 / v 1 0 0 / v 0 1 0 / l 1 2 / f 1 2 3")) == pytest.approx(0.5)
