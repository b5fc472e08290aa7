"""OBJ files and their material libraries, as meshes in the file's axes."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ms2.core.errors import suggest
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
from ms2.render.scene3d.polygons import triangulate

WIDTHS = {"v": (3, 7), "vt": (1, 3), "vn": (3, 3)}
"""Fewest and most numbers of a position (with a weight or a colour), of texture coordinates, and of a normal."""
LINES = {"l", "p"}
FREE_FORM = {"cstype", "curv", "curv2", "surf", "bmat"}
"""Statements of curved surfaces."""
OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2, "-o": 3,
    "-s": 3, "-t": 3, "-texres": 1, "-type": 1,
}  # fmt: skip
"""Options of a texture, which stand before its name, and the most values of each."""
LINE_END = re.compile(r"\r\n?|\n")
COMMENT = re.compile(r"(?:^|\s)#")  # not inside of a name
Corner = tuple[int, int, int]
"""Indices of position, texture coordinates and normal; -1 for none."""


@dataclass
class LibraryMaterial:
    """A material of a library as it is written.

    Attributes:
        colour: Kd.
        texture: File of map_Kd.
        folder: The mesh file's folder, to which it is relative.
        scale: Scale of texture coordinates.
        offset: Offset of the scaled texture coordinates.
        clamp: Whether the texture is not repeated.
    """

    folder: Path
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: str | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False


@dataclass
class OBJFile:
    """The parts of an OBJ file, one for each material.

    Of a material, Kd and map_Kd are used, without transparency. A material in `paint_materials` need not be defined.

    Attributes:
        data: The file.
        folder: Its folder, for the files that it names.
        paint_materials: Names of materials that the instance's colour tints.
        left_out: What was not used.
    """

    data: bytes
    folder: Path
    paint_materials: Collection[str] = ()
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if b"\0" in self.data:
            raise MeshFileError("cannot be read as OBJ: it is no text in UTF-8. Save it as plain text.")
        self.values: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
        self.polygons: dict[str | None, list[tuple[int, list[Corner]]]] = defaultdict(list)
        self.libraries: list[str] = []
        material: str | None = None
        for number, key, rest in _statements(self.data):
            try:
                if key in WIDTHS:
                    self.values[key].append(_numbers(rest, *WIDTHS[key]))
                elif key == "f" and len(rest.split()) > 2:
                    self.polygons[material].append((number, [self._corner(word) for word in rest.split()]))
                elif key in LINES or key == "f":
                    self.left_out.append(f"the point or line in line {number}")
                elif key == "usemtl":
                    material = " ".join(rest.split())
                elif key == "mtllib":
                    self.libraries.append(rest)
                elif key in FREE_FORM:
                    raise MeshFileError(f"has a curved surface ({key}) in line {number}. Export it as polygons.")
            except ValueError as error:
                if isinstance(error, MeshFileError):
                    raise
                raise MeshFileError(
                    f"cannot be read as OBJ: line {number} is {key!r} {rest!r} ({error}). Export it again, or leave it "
                    "out."
                ) from error

    def parts(self) -> Iterator[Mesh]:
        """Iterate over the meshes of all materials.

        Raises:
            MeshFileError: If a material is not defined, or an index or a value is out of range.
        """
        materials = self._materials()
        for name, polygons in self.polygons.items():
            definition = materials.get(name) if name is not None else LibraryMaterial(self.folder)
            if definition is None and name in self.paint_materials:
                definition = LibraryMaterial(self.folder)
            if definition is None:
                where = f"in {', '.join(self.libraries)}" if self.libraries else "as no mtllib line names a library"
                raise MeshFileError(
                    f"uses the material {name!r}, which is not defined {where}. "
                    f"{suggest(str(name), map(str, materials))} Export it with its materials, or correct the name."
                )
            yield self._part(name, polygons, definition)

    def _corner(self, word: str) -> Corner:
        """Read a corner of a polygon: ``v``, ``v/vt``, ``v//vn`` or ``v/vt/vn``; negative ones count from the last."""
        found = []
        for text, key in zip([*word.split("/"), "", ""], WIDTHS, strict=False):
            index = int(text) if text else None
            if index == 0 or (key == "v" and index is None):
                raise ValueError("indices begin with 1")
            found.append(-1 if index is None else index - 1 if index > 0 else len(self.values[key]) + index)
            if index is not None and found[-1] < 0:
                raise ValueError(f"there are {len(self.values[key])} {key} before it")
        return found[0], found[1], found[2]

    def _part(self, name: str | None, polygons: list[tuple[int, list[Corner]]], definition: LibraryMaterial) -> Mesh:
        corners: list[Corner] = []
        for number, polygon in polygons:
            for corner in polygon:
                for index, (key, values) in zip(corner, self.values.items(), strict=True):
                    if index >= len(values):
                        raise MeshFileError(
                            f"cannot be read as OBJ: line {number} refers to {key} {index + 1} of {len(values)}. "
                            "Export it again, or leave it out."
                        )
            triangles = triangulate([self.values["v"][corner[0]] for corner in polygon])
            corners += [polygon[i] for triangle in triangles for i in triangle]
        rows, inverse = np.unique(np.array(corners), axis=0, return_inverse=True)
        positions = [self.values["v"][i] for i in rows[:, 0]]
        colours = [(p[-3:] if len(p) >= 6 else [1.0, 1.0, 1.0]) for p in positions]
        uv = None
        if definition.texture is not None and (rows[:, 1] >= 0).all():
            given = np.array([(*self.values["vt"][i], 0.0)[:2] for i in rows[:, 1]])
            uv = given * definition.scale + definition.offset
            uv = uv * np.array([1, -1]) + np.array([0, 1])  # from the lower left corner to the upper left
        normals = [self.values["vn"][i] if i >= 0 else [0.0, 0.0, 0.0] for i in rows[:, 2]]
        return build_part(
            np.array([p[:3] for p in positions], float),
            inverse.reshape(-1, 3),
            np.array(normals, float),
            uv,
            np.array(colours, float),
            self._material(name, definition),
            self.paint_materials,
        )

    def _material(self, name: str | None, definition: LibraryMaterial) -> PartMaterial:
        if definition.texture is None:
            return PartMaterial(name, definition.colour)
        data = read_reference(self.folder, definition.texture, "texture")
        image = decode_texture(data, find_reference(self.folder, definition.texture))
        how: Wrapping = "clamp" if definition.clamp else "repeat"
        return PartMaterial(name, definition.colour, texture=image, wrapping=(how, how))

    def _materials(self) -> dict[str | None, LibraryMaterial]:
        found: dict[str | None, LibraryMaterial] = {}
        for names in self.libraries:
            whole = find_reference(self.folder, names).is_file()  # a name with spaces, rather than several names
            for name in [names] if whole else names.split():
                found |= read_library(read_reference(self.folder, name, "materials"), name, self.folder)
        return found


def read_library(data: bytes, library: str, folder: Path) -> dict[str | None, LibraryMaterial]:
    """Read the materials of a library by name.

    Raises:
        MeshFileError: If a colour or an option of a texture cannot be used.
    """
    found: dict[str | None, LibraryMaterial] = {}
    material = LibraryMaterial(folder)
    for number, key, rest in _statements(data):
        where = f"needs the materials {library}, whose line {number}"
        if key == "newmtl":
            material = found[" ".join(rest.split())] = LibraryMaterial(folder)
        elif key.lower() == "kd":
            try:
                values = _numbers(rest, 1, 3)
            except ValueError as error:
                raise MeshFileError(
                    f"{where} has the colour {rest!r}. Give three numbers from 0 to 1: red, green, blue."
                ) from error
            material.colour = (values[0], values[1], values[2]) if len(values) == 3 else (values[0],) * 3
        elif key.lower() == "map_kd":
            try:
                _read_texture(material, rest, where)
            except ValueError as error:
                if isinstance(error, MeshFileError):
                    raise
                raise MeshFileError(f"{where} has the texture {rest!r} ({error}). Correct its options.") from error
    return found


def _read_texture(material: LibraryMaterial, rest: str, where: str) -> None:
    """Read the options and the name of a texture."""
    while rest.startswith("-"):
        option, _, rest = rest.partition(" ")
        if option not in OPTIONS:
            raise MeshFileError(f"{where} has a texture with the option {option!r}. {suggest(option, OPTIONS)}")
        values: list[str] = []
        while len(values) < OPTIONS[option] and (not values or _is_number(rest.split(" ", 1)[0])):
            value, _, rest = rest.lstrip().partition(" ")
            values.append(value)
        rest = rest.lstrip()
        if option in ("-s", "-o"):
            default = 1.0 if option == "-s" else 0.0
            pair = (float(values[0]), float(values[1]) if len(values) > 1 else default)
            if option == "-s":
                material.scale = pair
            else:
                material.offset = pair
        elif option == "-clamp":
            material.clamp = values[0] == "on"
        elif (option == "-t" and any(map(float, values))) or (option == "-mm" and list(map(float, values)) != [0, 1]):
            raise MeshFileError(
                f"{where} has a texture with {option} {' '.join(values)}, which is not supported. Bake it into the "
                "texture, or remove the option."
            )
    if not rest:
        raise ValueError("it names no file")
    material.texture = rest


def _statements(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Iterate over line numbers, keywords and the rest of their lines, which backslashes continue."""
    text = data.decode("utf-8-sig", "surrogateescape")  # names keep their bytes, whatever their encoding
    joined, begin = "", 1
    for number, line in enumerate(LINE_END.split(text), 1):
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        key, _, rest = COMMENT.split(joined, 1)[0].strip().replace("\t", " ").partition(" ")
        if key:
            yield begin, key, rest.strip()
        joined, begin = "", number + 1


def _numbers(text: str, least: int, most: int) -> list[float]:
    found = [float(word) for word in text.split()]
    if not least <= len(found) <= most:
        raise ValueError(f"{len(found)} numbers instead of {least} to {most}")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
