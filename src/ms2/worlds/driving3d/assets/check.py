"""Check of a folder of user meshes: scale, facing, ground contact, counts, paint, licence."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ms2.core.errors import UserError
from ms2.core.paths import expand_path
from ms2.render.scene3d.asset_report import AssetReport, Finding
from ms2.render.scene3d.mesh_files import MESH_SUFFIXES, load_mesh
from ms2.render.scene3d.meshes import Mesh
from ms2.worlds.driving3d.assets.facing import (
    HEADED_CLASSES,
    LONG_CLASSES,
    TURNS_FILE,
    find_front,
    read_turns,
    turned,
    write_turns,
)
from ms2.worlds.driving3d.assets.folder import (
    PAINT_MATERIALS,
    SIZE_AXES,
    fit_to_class,
    mesh_files,
    subfolders,
    unread_files,
)
from ms2.worlds.driving3d.declaration import OBJECT_CLASSES, OBJECTS

UNITS = {"centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "feet": 0.3048}
"""Units of lengths, in metres."""
SLENDER_CLASSES = ("pedestrian", "sign", "light", "pole")
"""Classes that are higher than they are wide."""
BROAD_CLASSES = ("car", "truck", "house", "building")
"""Classes that touch the ground at places far from each other."""
MAX_LYING = 1.5
"""Ratio of width or length to height above which something slender seems to lie on the ground."""
CONTACT_HEIGHT, MIN_CONTACT = 0.05, 0.3
"""Fraction of the height that counts as the ground, and the least fraction of each side that has to reach it."""
MAX_SHIFT = 0.02
"""Fraction of the height by which the lowest point may miss the ground without a note."""
MAX_TRIANGLES = 20_000
"""Triangles from which on a mesh costs more time than the rest of a street."""
MAX_TEXTURES, MAX_TEXTURE_SIDE = 8, 1024
"""Textures, and texels along a side, above which a mesh has more than images show."""
LICENCE = re.compile(r"licen[cs]e|copying|readme", re.IGNORECASE)
"""Names of files that may say under which licence meshes are."""


def check_assets(folder: Path, mend: bool = False) -> list[AssetReport]:
    """Check the files of an assets folder.

    Args:
        folder: The folder.
        mend: Whether to write the turns that the rule for vehicles is sure of to the folder's `TURNS_FILE`.

    Returns:
        A report for the folder, if there is anything to say of it, and one for each file.

    Raises:
        UserError: If the folder or a subfolder can't be used at all.
    """
    root = expand_path(str(folder))
    classes = subfolders(root, OBJECTS)
    turns = read_turns(root)
    reports = [_check_file(file, sub.name, root, turns) for sub in classes for file in mesh_files(sub)]
    if mend:
        found = {report.name: turn for report, turn in reports if turn is not None}
        if found:
            write_turns(root, turns | found)
            turns = read_turns(root)
            reports = [_check_file(file, sub.name, root, turns) for sub in classes for file in mesh_files(sub)]
    whole = tuple(_folder_findings(root, classes))
    return [*([AssetReport("", whole)] if whole else []), *(report for report, _ in reports)]


def _folder_findings(root: Path, classes: list[Path]) -> Iterator[Finding]:
    texts = [path for place in (root, *classes) for path in place.iterdir() if path.is_file()]
    if not any(LICENCE.search(path.name) for path in texts):
        yield Finding(
            "warning",
            f"no file says under which licence the meshes are: put a LICENSE.txt into {root}, with their origin; data "
            "cards of images refer to the folder",
        )
    unread = [file.name for place in classes for file in unread_files(place)]
    if unread:
        listed = ", ".join(unread[:3]) + (f" and {len(unread) - 3} more" if len(unread) > 3 else "")
        yield Finding("warning", f"not read: {listed}. Export them as {' or '.join(MESH_SUFFIXES)}")


def _check_file(file: Path, name: str, root: Path, turns: dict[str, float]) -> tuple[AssetReport, int | None]:
    """Check a file; also return the turn that it needs, where the rule is sure and the folder's file has none."""
    title = file.relative_to(root).as_posix()
    try:
        mesh = load_mesh(file.absolute(), PAINT_MATERIALS)
        given = turned(mesh, turns.get(title, 0))
        fitted = fit_to_class(given, name)
    except UserError as error:
        return AssetReport(title, (Finding("error", str(error)),)), None
    size = given.vertices.max(0) - given.vertices.min(0)
    facing = find_front(given, name)
    factor = float(np.ptp(fitted.vertices[:, 2]) / max(size[2], 1e-12))
    factor = 1.0 if abs(factor - 1) < 1e-4 else factor
    findings = [
        *_scale(size, name, factor),
        *_upright(size, name),
        *_front(facing.turn, facing.lies_across, name, title, title in turns),
        *_ground(given, name),
        *_costs(mesh),
    ]
    if title in turns:
        findings.append(Finding("note", f"turned by {turns[title]:g} degrees, as {TURNS_FILE} says"))
    if name in HEADED_CLASSES and not (np.asarray(mesh.paint) > 0).any():
        findings.append(
            Finding("note", "its colour is always the same: call the material of its paint 'paint' to vary it")
        )
    wanted = facing.turn if facing.turn and title not in turns else None
    return AssetReport(title, tuple(findings), fitted, factor), wanted


def _scale(size: np.ndarray, name: str, factor: float) -> Iterator[Finding]:
    true = OBJECT_CLASSES[name].true_size
    measured = float(size[SIZE_AXES[true.axis]])
    if true.minimum <= measured <= true.maximum:
        return
    units = [unit for unit, metres in UNITS.items() if true.minimum <= measured * metres <= true.maximum]
    guess = f", perhaps in {' or '.join(units)}," if units else ""
    yield Finding(
        "note",
        f"its {true.axis} is {measured:.4g}{guess} and that of a {name} {true.minimum:g} to {true.maximum:g} m: it is "
        f"scaled by {factor:.4g} to {true.typical:g} m; exported in metres it would keep its own size",
    )


def _upright(size: np.ndarray, name: str) -> Iterator[Finding]:
    width, length, height = size.tolist()
    lies = name in SLENDER_CLASSES and max(width, length) > MAX_LYING * height
    if lies or (name in HEADED_CLASSES and height > max(width, length)):
        yield Finding(
            "warning",
            f"it is {height:.3g} high and {max(width, length):.3g} long, as if it {'lay' if lies else 'stood on end'}: "
            "in GLB and OBJ files y is up; export it again with 'Y up'",
        )


def _front(turn: int | None, lies_across: bool, name: str, title: str, told: bool) -> Iterator[Finding]:
    if name not in LONG_CLASSES or told:
        return
    mend = f'ms2 assets with --mend writes {{"{title}": {turn}}} to {TURNS_FILE}, or turn it, and export it again'
    if turn:
        way = "to its left" if turn == 270 else "to its right" if turn == 90 else "backward"
        yield Finding("warning", f"its front seems to point {way}, where the upper part is not: {mend}")
    elif lies_across:
        yield Finding(
            "warning",
            f"it is wider than it is long, and its shape does not tell the front: write 90 or 270 degrees for {title} "
            f"to {TURNS_FILE}, and look at the sheet",
        )
    elif turn is None and name in HEADED_CLASSES:
        yield Finding("note", "its shape does not tell the front: see on the sheet whether it is where the arrow is")


def _ground(mesh: Mesh, name: str) -> Iterator[Finding]:
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    size = np.maximum(high - low, 1e-12)
    if abs(low[2]) > MAX_SHIFT * size[2]:
        yield Finding("note", f"its lowest point is at {low[2]:.3g}, not 0: it is moved to the ground")
    used = mesh.vertices[np.unique(mesh.triangles)]
    bottom = used[used[:, 2] <= low[2] + CONTACT_HEIGHT * size[2]]
    reach = (np.ptp(bottom[:, :2], axis=0) / size[:2]).min()
    if name in BROAD_CLASSES and reach < MIN_CONTACT:
        yield Finding(
            "warning",
            "only a small part of it touches the ground, and the rest floats: remove what is below it, or set its "
            "lowest parts to one height",
        )


def _costs(mesh: Mesh) -> Iterator[Finding]:
    if len(mesh.triangles) > MAX_TRIANGLES:
        yield Finding(
            "warning",
            f"{len(mesh.triangles)} triangles take long to draw, and few show: decimate it to {MAX_TRIANGLES} or fewer",
        )
    if len(mesh.textures) > MAX_TEXTURES:
        yield Finding("note", f"{len(mesh.textures)} textures take memory: bake them to one")
    side = max((max(image.shape[:2]) for image in mesh.textures), default=0)
    if side > MAX_TEXTURE_SIDE:
        yield Finding("note", f"a texture of {side} texels is reduced to {MAX_TEXTURE_SIDE}: store it so")
