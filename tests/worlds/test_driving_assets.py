"""Models, grounds and colours of the driving world."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from ms2.core.errors import UserError
from ms2.render.scene3d.mesh_files import load_mesh
from ms2.render.scene3d.meshes import MeshLibrary
from ms2.worlds.driving3d.assets.folder import SIZE_AXES, fit_to_class, read_models
from ms2.worlds.driving3d.assets.ground import (
    CURVATURES,
    END,
    FIELDS,
    GROUND_STRIPS,
    KERB_HEIGHT,
    SEGMENTS,
    START,
    ground_meshes,
    ground_strip,
    lateral_offset,
    segment_positions,
)
from ms2.worlds.driving3d.assets.mesh_builder import Material, MeshBuilder, translate
from ms2.worlds.driving3d.assets.mesh_classes import PROCEDURES, mesh_classes
from ms2.worlds.driving3d.assets.textures import noise
from ms2.worlds.driving3d.declaration import OBJECT_CLASSES

DATA = os.environ.get("MS2_DATA")
TEXTURE = np.full((4, 4, 3), 128, np.uint8)

# models at least, triangles at most, and metres across, along and up, from and to
WANTED = {
    "car": (7, 600, (1.7, 2.3), (3.4, 5.2), (1.3, 2.1)),
    "truck": (4, 500, (2.3, 3.1), (6, 15), (2.8, 5.0)),
    "pedestrian": (6, 350, (0.35, 0.8), (0.3, 1.3), (1.1, 1.9)),
    "cyclist": (3, 600, (0.4, 0.8), (1.6, 2.0), (1.5, 1.9)),
    "tree": (7, 500, (2, 11), (2, 11), (4, 13)),
    "bush": (3, 150, (0.7, 3.2), (0.7, 3.2), (0.9, 2.5)),
    "house": (6, 400, (8, 17), (8, 14), (5, 14)),
    "building": (6, 400, (10, 22), (11, 18), (12, 25)),
    "sign": (5, 150, (0.5, 2), (0.05, 0.2), (2, 3.5)),
    "light": (2, 150, (0.3, 5), (0.2, 0.5), (3, 6.5)),
    "pole": (3, 150, (0.3, 4.5), (0.2, 0.5), (3.5, 9)),
}


def foot_of(mesh, name):
    """Vertices by which a model's place is told."""
    if OBJECT_CLASSES[name].post_mounted and name != "bush":
        return mesh.vertices[mesh.vertices[:, 2] < 0.05 * mesh.vertices[:, 2].max()]
    return mesh.vertices


def everything():
    return [(name, mesh) for name, kind in mesh_classes().items() for mesh in kind.models]


# --- models ---


def test_all_classes_are_there():
    assert list(mesh_classes()) == list(PROCEDURES) == list(OBJECT_CLASSES) and set(WANTED) == set(OBJECT_CLASSES)
    assert mesh_classes() is mesh_classes()


@pytest.mark.parametrize("name", WANTED)
def test_there_are_enough_models_of_true_size(name):
    number, most, *spans = WANTED[name]
    kind = mesh_classes()[name]
    assert len(kind.models) == len(kind.sizes) >= number
    for mesh, size in zip(kind.models, kind.sizes, strict=True):
        assert len(mesh.triangles) <= most
        assert size == pytest.approx(np.ptp(mesh.vertices, axis=0), abs=1e-5)
        for metres, (low, high) in zip(size, spans, strict=True):
            assert low <= metres <= high


@pytest.mark.parametrize("name", WANTED)
def test_models_stand_on_the_ground_around_the_origin(name):
    for mesh in mesh_classes()[name].models:
        assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-4)
        foot = foot_of(mesh, name)
        assert (foot.min(0) + foot.max(0))[:2] / 2 == pytest.approx([0, 0], abs=0.02)


@pytest.mark.parametrize("name", WANTED)
def test_models_can_be_drawn(name):
    for mesh in mesh_classes()[name].models:
        assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1, abs=1e-4)
        assert np.isfinite(mesh.vertices).all() and mesh.casts_shadow
        a, b, c = mesh.vertices[mesh.triangles].swapaxes(0, 1)
        assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 1e-8
        assert np.min(mesh.colour) >= 0 and np.max(mesh.colour) <= 1.2
    library = MeshLibrary({str(i): mesh for i, mesh in enumerate(mesh_classes()[name].models)})
    assert len(library) == len(mesh_classes()[name].models)


def test_what_an_instance_paints_is_painted():
    """Bodies, clothes, leaves and walls take on a colour; glass, tyres, skin and signs have their own."""
    for name, mesh in everything():
        share = np.mean(np.broadcast_to(mesh.paint, len(mesh.vertices)) > 0)
        assert share == 0 if name in ("sign", "light", "pole") else share > 0.03, name
        assert share < 1 or name == "bush", name


def test_cars_face_along_y():
    """Headlamps are bright, tail lamps red."""
    for mesh in mesh_classes()["car"].models:
        red = (mesh.colour[:, 0] > 0.4) & (mesh.colour[:, 1] < 0.1)
        bright = (mesh.colour.min(1) > 0.75) & (mesh.gloss > 0.55) & (mesh.paint == 0)
        assert red.any() and bright.any()
        assert mesh.vertices[red, 1].max() < -1 and mesh.vertices[bright, 1].min() > 1


def test_cars_are_alike_left_and_right():
    for mesh in mesh_classes()["car"].models:
        places = (mesh.vertices * 200).round().astype(int)
        assert {tuple(place) for place in places * [-1, 1, 1]} == {tuple(place) for place in places}


def test_palettes_hold_colours():
    for kind in mesh_classes().values():
        assert kind.palette
        assert all(len(colour) == 3 and 0 <= min(colour) <= max(colour) <= 1 for colour in kind.palette)


def test_most_cars_have_no_colour():
    """Black, grey, silver and white are more than half of all."""
    plain = [max(colour) - min(colour) < 0.06 for colour in mesh_classes()["car"].palette]
    assert np.mean(plain) > 0.5


def test_models_are_the_same_each_time():
    for name, procedure in PROCEDURES.items():
        for mesh, again in zip(mesh_classes()[name].models, procedure.make(), strict=True):
            assert np.array_equal(mesh.vertices, again.vertices) and np.array_equal(mesh.colour, again.colour)
            assert len(mesh.textures) == len(again.textures)
            for texture, other in zip(mesh.textures, again.textures, strict=True):
                assert np.array_equal(texture, other)


# --- the builder ---


def test_edges_are_smooth_up_to_the_crease_angle():
    for crease, smooth in ((80, True), (50, False)):
        into = MeshBuilder(crease=crease)
        angle = 2 * np.pi * np.arange(6) / 6  # neighbouring sides are at 60 degrees
        ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
        into.loft([ring, translate(ring, z=1.0)], Material())
        mesh = into.mesh()
        radial = mesh.vertices[:, :2] / np.linalg.norm(mesh.vertices[:, :2], axis=1, keepdims=True)
        along = (mesh.normals[:, :2] * radial).sum(1)
        assert (along.min() > 0.99) == smooth
        assert len(mesh.vertices) == (12 if smooth else 24)


def test_triangles_without_area_are_left_out():
    """Of any direction: a point twice, three points in a line; and a small triangle is none of them."""
    for turned in np.linalg.qr(np.random.default_rng(0).normal(size=(20, 3, 3)))[0]:
        for corners, number in (
            ([(0, 0, 0), (0, 0, 0), (1, 0, 1), (0, 1, 1)], 1),  # as where a loft ends in a point
            ([(0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0)], 1),
            ([(0, 0, 0), (1, 0, 0), (0, 1, 0)], 1),
            ([(0, 0, 0), (1e-4, 0, 0), (0, 1e-4, 0)], 1),
            ([(0, 0, 0), (1, 0, 0), (2, 0, 0)], 0),
        ):
            into = MeshBuilder()
            into.face(np.array(corners) @ turned, Material())
            assert len(into) == number


def test_a_mirrored_half_makes_a_whole():
    into = MeshBuilder()
    into.face([(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)], Material(texture=TEXTURE))
    into.mirror()
    mesh = into.mesh()
    assert len(mesh.triangles) == 4 and mesh.vertices[:, 0].min() == -1
    a, b, c = mesh.vertices[mesh.triangles].swapaxes(0, 1)
    assert (np.cross(b - a, c - a)[:, 1] < 0).all()


def test_noise_joins_itself():
    field = noise(np.random.default_rng(0), (64, 48), (8, 6))
    inner = abs(np.diff(field, axis=0)).max(), abs(np.diff(field, axis=1)).max()
    assert abs(field[0] - field[-1]).max() <= inner[0] and abs(field[:, 0] - field[:, -1]).max() <= inner[1]
    assert abs(field.mean()) < 0.5 and 0.5 < field.std() < 1.5


# --- grounds ---


def test_all_grounds_are_there():
    names = {f"{name}_{form}" for name in GROUND_STRIPS for form in range(len(CURVATURES))}
    assert set(ground_meshes()) == names | {f"field_{name}" for name in FIELDS}
    MeshLibrary(ground_meshes())


@pytest.mark.parametrize("name", GROUND_STRIPS)
def test_ground_strips_are_a_metre_wide_and_follow_their_bend(name):
    for form, curve in enumerate(CURVATURES):
        mesh = ground_meshes()[f"{name}_{form}"]
        assert not mesh.casts_shadow and mesh.texture == 0
        x, y, z = mesh.vertices.T
        middle = curve * np.maximum(y, 0) ** 2 / 2
        assert np.abs(x - middle) == pytest.approx(0.5, abs=1e-4)
        assert (y.min(), y.max()) == (START, END)
        assert len(np.unique(y)) == SEGMENTS
        assert set(np.unique(z)) == ({0.0, np.float32(KERB_HEIGHT)} if name == "kerb" else {0.0})
        assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1, abs=1e-4)


def test_a_kerb_has_faces_at_its_sides():
    mesh = ground_meshes()["kerb_0"]
    for way in (-1, 1):
        side = mesh.vertices[np.isclose(mesh.normals[:, 0], way)]
        assert np.allclose(side[:, 0], way * 0.5) and np.ptp(side[:, 2]) == pytest.approx(KERB_HEIGHT)


def test_ground_strips_can_be_of_any_width_and_bend():
    mesh = ground_strip(TEXTURE, 8.0, width=7.0, curve=-0.01)
    at = mesh.vertices[np.isclose(mesh.vertices[:, 1], END)]
    assert sorted(at[:, 0]) == pytest.approx([-0.01 * END**2 / 2 - 3.5, -0.01 * END**2 / 2 + 3.5])
    assert np.ptp(mesh.uv[:, 1]) == pytest.approx((END - START) / 8)


def test_near_segments_are_shorter():
    steps = np.diff(segment_positions())[1:]
    assert (np.diff(steps) > 0).all() and segment_positions()[1] == 0
    assert lateral_offset(np.array([-5.0, 0.0, 10.0]), 0.02) == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("name", FIELDS)
def test_fields_reach_to_the_horizon_below_the_road(name):
    mesh = ground_meshes()[f"field_{name}"]
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx([400, 300, 0])
    assert mesh.vertices[:, 1].min() == pytest.approx(-30) and mesh.vertices[0, 2] == pytest.approx(-0.06)
    assert not mesh.casts_shadow and len(mesh.triangles) < 500


def test_roads_differ_in_their_markings():
    """Paint is where the lanes end: bright columns of the texture."""
    lines = {}
    for name in ("road_plain", "road_two", "road_four", "road_one"):
        light = ground_meshes()[f"{name}_0"].textures[0].astype(float).mean((0, 2))
        edges = np.diff(np.concatenate([[0], light > np.median(light) + 25, [0]]).astype(int)) == 1
        lines[name] = edges.sum()
    assert lines == {"road_plain": 0, "road_two": 3, "road_four": 6, "road_one": 3}


# --- a folder of one's own ---


def obj(folder, name="model", size=(1.0, 1.0, 2.0), material="Paint", library=True, texture=None):
    """A box in an OBJ file, x, y and z as in the rasteriser's world."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y, z = size
    corners = [(a * x, c * z, b * y) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    lines = ["mtllib model.mtl", *(f"v {a} {b} {c}" for a, b, c in corners), "vt 0 0", "vt 1 0", "vt 1 1"]
    faces = [(1, 2, 4, 3), (5, 6, 8, 7), (1, 2, 6, 5), (3, 4, 8, 7), (1, 3, 7, 5), (2, 4, 8, 6)]
    lines.append(f"usemtl {material}")
    for a, b, c, d in faces:
        lines += [f"f {a}/1 {b}/2 {c}/3", f"f {a}/1 {c}/2 {d}/3"]
    (folder / f"{name}.obj").write_text("\n".join(lines))
    if library:
        map_line = f"\nmap_Kd {texture}" if texture else ""
        (folder / "model.mtl").write_text(f"newmtl {material}\nKd 0.25 0.25 0.25{map_line}\n")
    return folder / f"{name}.obj"


def glb(folder, name="model", size=(1.0, 1.0, 2.0)):
    folder.mkdir(parents=True, exist_ok=True)
    x, y, z = size
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.box((x, z, y)).export(folder / f"{name}.glb")
    return folder / f"{name}.glb"


def test_a_folder_replaces_classes(tmp_path):
    obj(tmp_path / "car", "a", (0.5, 1.0, 0.4))
    glb(tmp_path / "car", "b", (2.0, 5.0, 2.0))
    found = mesh_classes(str(tmp_path))
    assert len(found["car"].models) == 2
    assert found["car"].sizes[0] == pytest.approx((2.15, 4.3, 1.72), abs=1e-3)  # scaled
    assert found["car"].sizes[1] == pytest.approx((2, 5, 2), abs=1e-3)  # a true size already
    assert found["car"].palette == mesh_classes()["car"].palette
    assert found["tree"] is mesh_classes()["tree"]
    for mesh in found["car"].models:
        low, high = mesh.vertices.min(0), mesh.vertices.max(0)
        assert [*(low + high)[:2], low[2]] == pytest.approx([0, 0, 0], abs=1e-4)


@pytest.mark.parametrize("name", OBJECT_CLASSES)
def test_models_are_scaled_to_their_class(name, tmp_path):
    true = OBJECT_CLASSES[name].true_size
    axis, least, usual, most = SIZE_AXES[true.axis], true.minimum, true.typical, true.maximum
    assert least < usual < most
    mesh = fit_to_class(load_mesh(glb(tmp_path, size=(100.0, 200.0, 300.0))), name)
    assert np.ptp(mesh.vertices, axis=0)[axis] == pytest.approx(usual, rel=1e-4)
    spans = WANTED[name][2:]
    assert spans[axis][0] * 0.8 <= usual <= spans[axis][1] * 1.1


def test_a_trunk_stands_at_the_origin(tmp_path):
    """However far the crown reaches out to one side."""
    trimesh = pytest.importorskip("trimesh")
    low, high = trimesh.creation.box((0.2, 4, 0.2)), trimesh.creation.box((3, 1, 1))
    low.apply_translation((0, 2, 0)), high.apply_translation((1.4, 4.5, 0))
    trimesh.Scene([low, high]).export(tmp_path / "tree.glb")
    mesh = fit_to_class(load_mesh(tmp_path / "tree.glb"), "tree")
    foot = mesh.vertices[mesh.vertices[:, 2] < 0.1]
    assert (foot.min(0) + foot.max(0))[:2] == pytest.approx([0, 0], abs=1e-4)
    assert abs((mesh.vertices.min(0) + mesh.vertices.max(0))[0]) > 1


def test_flat_models_are_named(tmp_path):
    mesh = load_mesh(glb(tmp_path))
    flat = type(mesh)(mesh.vertices * np.float32([1, 1, 0]), mesh.normals, mesh.triangles)
    with pytest.raises(UserError, match=r"a model of 'tree' is 0.0 long along z: it cannot be scaled to 7.0 m"):
        fit_to_class(flat, "tree")


def test_materials_called_paint_take_on_colour(tmp_path):
    painted, plain = obj(tmp_path / "a", material="carpaint"), obj(tmp_path / "b", material="glass")
    models = read_models(str(_moved(tmp_path, painted, "car")), ("car",))["car"]
    assert np.max(models[0].paint) == 1 and np.min(models[0].colour) == 1
    models = read_models(str(_moved(tmp_path, plain, "car")), ("car",))["car"]
    assert np.max(models[0].paint) == 0 and np.max(models[0].colour) == pytest.approx(0.5, abs=0.01)


def _moved(root, file, name):
    """An assets folder with this file in one class."""
    folder = root / f"assets_{file.parent.name}"
    shutil.copytree(file.parent, folder / name)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, r"there is no assets folder .*nowhere.*leave it out"),
        (lambda root: root.mkdir(), r"has no subfolders\. Put meshes into one or more of: car, truck"),
        (lambda root: glb(root / "cars"), r"cars is not named by a class\. Did you mean 'car'\?.*Rename or remove it"),
        (lambda root: (root / "car").mkdir(parents=True), r"car holds no meshes \(\.glb, \.obj\)\. Add some"),
        (lambda root: obj(root / "car", library=False), r"model\.mtl, which are not there.*repair it, or remove it"),
        (lambda root: obj(root / "car", texture="x.png"), r"model\.obj needs the texture .*x\.png, which is not there"),
        (lambda root: _broken(root / "car"), r"model\.glb is no GLB file.*'car': repair it, or remove it"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(make, message, tmp_path):
    root = tmp_path / "nowhere"
    make(root)
    with pytest.raises(UserError, match=message):
        mesh_classes(str(root))


def _broken(folder):
    folder.mkdir(parents=True)
    (folder / "model.glb").write_text("a car")


def test_broken_files_can_be_skipped(tmp_path):
    _broken(tmp_path / "car")
    _broken(tmp_path / "tree")
    glb(tmp_path / "tree", "good", (1, 1, 5))
    with pytest.warns(UserWarning, match=r"2 of the files .* are left out: .*Procedural meshes are used for: car\.$"):
        found = mesh_classes(str(tmp_path), "skip")
    assert found["car"] is mesh_classes()["car"] and len(found["tree"].models) == 1
    with pytest.raises(UserError, match=r"on_error is 'skp'\. Did you mean 'skip'\?"):
        mesh_classes(str(tmp_path), "skp")


def test_mesh_files_of_other_kinds_are_named(tmp_path):
    glb(tmp_path / "tree", "a")
    for name in ("a.fbx", "b.FBX", "c.gltf", ".d.fbx", "notes.txt"):
        (tmp_path / "tree" / name).touch()
    with pytest.warns(
        UserWarning, match=r"2 mesh files in .* of kinds that are not read: b\.FBX, c\.gltf\. Export them"
    ):
        assert len(read_models(str(tmp_path), ("tree",))["tree"]) == 1


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(UserError, match="is empty"):
        read_models("", ("tree",))


def test_nothing_is_skipped_silently_or_warned_of_needlessly(tmp_path):
    glb(tmp_path / "tree")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mesh_classes(str(tmp_path), "skip")


@pytest.mark.skipif(not DATA, reason="MS2_DATA names no folder of data")
@pytest.mark.parametrize(
    ("name", "pack", "pattern"),
    [
        ("car", "kenney_carkit_v2", "*.glb"),
        ("pedestrian", "quaternius_people", "*.glb"),
        ("tree", "quaternius_nature", "Tree*.glb"),
        ("building", "kenney_citybuilder", "building-small*.glb"),
    ],
)
def test_free_packs_can_be_used(name, pack, pattern, tmp_path):
    source = Path(DATA) / "assets3d" / pack
    (tmp_path / name).mkdir()
    for file in sorted(source.glob(pattern))[:3]:
        shutil.copy(file, tmp_path / name)
    if (source / "Textures").is_dir():
        shutil.copytree(source / "Textures", tmp_path / name / "Textures")
    kind = mesh_classes(str(tmp_path))[name]
    true = OBJECT_CLASSES[name].true_size
    axis, least, most = SIZE_AXES[true.axis], true.minimum, true.maximum
    for mesh, size in zip(kind.models, kind.sizes, strict=True):
        assert least - 1e-3 <= size[axis] <= most + 1e-3
        assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-4)
