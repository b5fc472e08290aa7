"""The renderer of driving scenes: its labels against geometry, and against what KITTI's own files hold to."""

import copy
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from helpers import rng
from PIL import Image
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.core.images import read_image
from ms2.datasets.formats.kitti_files import read_labels
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.calibration import read_projection
from ms2.render.scene3d.camera import Camera
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.worlds.driving3d.assets.mesh_classes import mesh_classes
from ms2.worlds.driving3d.declaration import OBJECTS, SCENARIOS
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import SimpleStreets
from ms2.worlds.driving3d.renderer import (
    FAR_DISTANCE,
    KITTI_P2,
    KITTI_SIZE,
    Rendering3D,
    StreetView,
    resized_projection,
)

GRAMMAR = Driving()
NUMBER = {name: i for i, name in enumerate(GRAMMAR.classes)}
VIEW = StreetView((128, 416), engine=WarpEngine(shadow_size=256))
SMALL = StreetView((32, 104), engine=WarpEngine(shadow_size=128))
PLAIN = {
    "curve": 0.0, "road_width": 7.0, "lanes": 2.0, "parking_left": 0.0, "parking_right": 0.0, "walk_left": 0.0,
    "walk_right": 0.0, "verge_left": 2.0, "verge_right": 2.0, "road_look": 0.1, "walk_look": 0.5, "verge_look": 0.1,
    "field_look": 0.1, "offset": 1.75, "camera_height": 1.65, "pitch": 0.0, "camera_yaw": 0.0, "sun_azimuth": 0.5,
    "sun_height": 0.8, "clouds": 0.3, "haze": 0.0, "exposure": 1.0, "contrast": 1.0, "saturation": 1.0, "blur": 0.0,
}  # fmt: skip
NEEDS_KITTI = pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA is not set")


def scene(
    *objects: tuple[str, float, float, float] | tuple[str, float, float, float, float], **street: float
) -> SceneBatch:
    """One scene of objects: class, x, y, yaw, and which model if not the first, on a plain straight street."""
    classes = torch.tensor([[1, *(NUMBER[thing[0]] for thing in objects)]])
    rows = torch.tensor([[0.0] * 4, *([*thing[1:], 0.0][:4] for thing in objects)]).T[:, None]
    attributes = dict(zip(("x", "y", "yaw", "model"), rows, strict=True))
    ones = torch.ones_like(attributes["x"])
    attributes |= dict.fromkeys(("width", "length", "height"), ones) | {"colour": ones / 2}
    environment = {name: torch.tensor([value]) for name, value in (PLAIN | street).items()}
    return SceneBatch(classes, torch.full_like(classes, -1), attributes, environment)


def crowd(n: int = 8, seed: int = 0) -> SceneBatch:
    generator = rng(seed)
    return StreetLayout().sample(
        scenes_from_derivations(GRAMMAR, SimpleStreets(0, 3).sample(GRAMMAR, n, generator)), generator
    )


def corners(box: Tensor) -> Tensor:
    """The eight corners of KITTI's 3D boxes, ``... 8 3``, as its development kit computes them."""
    height, width, length, x, y, z, turn = box.unbind(-1)
    signs = torch.tensor([[i, j, k] for i in (-1.0, 1.0) for j in (0.0, 1.0) for k in (-1.0, 1.0)])
    a, b, c = signs.unbind(-1)
    along, across = a * length[..., None] / 2, c * width[..., None] / 2
    cos, sin = turn.cos()[..., None], turn.sin()[..., None]
    return torch.stack(
        [
            x[..., None] + cos * along + sin * across,
            y[..., None] - b * height[..., None],
            z[..., None] - sin * along + cos * across,
        ],
        -1,
    )


def projected(points: Tensor, p2: Tensor) -> Tensor:
    """Pixels of points in the reference camera's axes; KITTI's, whose centres have whole numbers."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ p2.T
    return homogeneous[..., :2] / homogeneous[..., 2:]


def box_of(box: Tensor, p2: Tensor) -> Tensor:
    """Left, top, right, bottom of a 3D box in the image."""
    pixels = projected(corners(box), p2)
    return torch.cat([pixels.amin(-2), pixels.amax(-2)], -1)


# --- labels against geometry ---


def outline(name: str, model: float, found: Rendering3D) -> Tensor:
    """Left, top, right, bottom of a mesh's own vertices in the image, from its 3D box alone."""
    meshes = mesh_classes()[name].models
    mesh = meshes[min(int(model * len(meshes)), len(meshes) - 1)]
    low, high = torch.tensor(mesh.vertices.min(0)), torch.tensor(mesh.vertices.max(0))
    place = (torch.tensor(mesh.vertices) - (low + high) / 2) / (high - low)  # -0.5 to 0.5 within the box
    height, width, length, *foot, turn = found.boxes3d[0, 1]
    right, ahead, up = place[:, 0] * width, place[:, 1] * length, (place[:, 2] + 0.5) * height
    # a heading of 0 is along x, from where positive turns go away from z
    x = foot[0] + ahead * turn.cos() - right * turn.sin()
    z = foot[2] - ahead * turn.sin() - right * turn.cos()
    pixels = projected(torch.stack([x, foot[1] - up, z], -1), found.projection[0]) + 0.5  # from centres to edges
    return torch.cat([pixels.amin(0), pixels.amax(0)])


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.4])
def test_boxes_are_those_of_the_3d_boxes(name: str, yaw: float) -> None:
    """The 2D box is that of the mesh put into the 3D box, and within that of the 3D box's corners."""
    far = 50.0 if name in ("house", "building") else 22.0
    edges = torch.tensor([416.0, 128.0, 416.0, 128.0])
    for model in torch.linspace(0.01, 0.99, 4).tolist():
        scenes = scene((name, -2.5, far, yaw, model), pitch=0.0, camera_yaw=0.02, camera_height=1.7)
        found = VIEW.render_labelled(scenes)
        box = found.boxes[0, 1]
        inner = outline(name, model, found)
        outer = box_of(found.boxes3d[0, 1], found.projection[0]) + 0.5
        for wanted in (inner, outer):
            wanted.clamp_(min=0).copy_(wanted.minimum(edges))
        assert (box - inner).abs().max() < 0.3, (name, model, box, inner)
        assert (box[:2] >= outer[:2] - 0.3).all() and (box[2:] <= outer[2:] + 0.3).all(), (name, model, box, outer)
        if name in ("pedestrian", "pole", "sign", "car"):  # slim or square: the corners are near
            assert (box - outer).abs().max() < 3.5 + 0.1 * float(outer[2] - outer[0])


@pytest.mark.parametrize("pitch", [-0.015, 0.015])
def test_boxes_lie_level_with_the_camera(pitch: float) -> None:
    """KITTI's boxes turn about the camera's y axis only, so a tilted camera's are off by no more than it is tilted."""
    for y in (10.0, 40.0):
        found = VIEW.render_labelled(scene(("car", 2.0, y, 0.0), pitch=pitch))
        assert (found.boxes[0, 1] - outline("car", 0.0, found)).abs().max() < 1.5


@pytest.mark.parametrize(("seed", "pitch"), [(0, 0.0), (1, 0.015), (2, -0.1), (3, 0.2)])
def test_3d_boxes_are_the_smallest_around_the_meshes_as_drawn(seed: int, pitch: float) -> None:
    """All vertices lie within the box to a millimetre, and some on each side: near, far, and before any camera."""
    scenes = crowd(6, seed)
    scenes = scenes.with_environment(pitch=torch.full((6,), pitch), camera_yaw=torch.linspace(-0.5, 0.5, 6))
    objects = SMALL.assemble(scenes).objects(scenes.classes.shape[1])
    found = SMALL.render_labelled(scenes).boxes3d
    meshes = list(SMALL._tables_on(torch.device("cpu")).library.meshes.values())
    pose = Camera.from_pinhole(
        torch.ones(6, 2), torch.zeros(6, 2), *(scenes.environment[k] for k in ("camera_height", "pitch", "camera_yaw"))
    ).pose.double()
    used = (objects.mesh >= 0).nonzero().tolist()
    far = [b for b, i in used if scenes.attributes["y"][b, i] > FAR_DISTANCE]
    assert len(used) > 50 and len(far) > 5 and not found[objects.mesh < 0].any()
    for b, i in used:
        vertices = torch.from_numpy(meshes[objects.mesh[b, i]].vertices).double()
        world = vertices @ objects.transform[b, i, :3, :3].double().T + objects.transform[b, i, :3, 3].double()
        camera = world @ pose[b, :, :3].T + pose[b, :, 3]
        height, width, length, x, y, z, turn = found[b, i].double().tolist()
        right, ahead = camera[:, 0] - x, camera[:, 2] - z
        inside = (  # along, up and across; each from -0.5 to 0.5 times the box's side
            (right * math.cos(turn) - ahead * math.sin(turn), length),
            (y - height / 2 - camera[:, 1], height),
            (right * math.sin(turn) + ahead * math.cos(turn), width),
        )
        for places, side in inside:
            ends = [float(places.min()) + side / 2, float(places.max()) - side / 2]
            assert ends == pytest.approx([0, 0], abs=1e-3), (b, i)


def test_a_car_ahead_is_where_similar_triangles_put_it() -> None:
    """Its rear, 20 m ahead, is as wide as focal length times width by distance."""
    found = VIEW.render_labelled(scene(("car", 0.0, 22.3, 0.0)))
    height, width, length, x, y, z, turn = found.boxes3d[0, 1].tolist()
    assert (x, y, z) == pytest.approx((0.0, 1.65, 22.3), abs=1e-4)
    assert turn == pytest.approx(-math.pi / 2)  # KITTI: cars that drive ahead
    focal = float(found.projection[0, 0, 0])
    assert focal == pytest.approx(721.5377 * 128 / 375, rel=1e-5)
    box = found.boxes[0, 1]
    # from its rear, which is nearest, to its front; the mirrors, which make it as wide as it is, are in between
    near, distant = z - length / 2, z + length / 2
    assert width * focal / distant < float(box[2] - box[0]) < width * focal / near
    assert height * focal / distant < float(box[3] - box[1]) < height * focal / near + 0.5


@pytest.mark.parametrize(
    ("yaw", "turn"), [(0.0, -math.pi / 2), (-math.pi / 2, 0.0), (math.pi / 2, math.pi), (3.1, 1.612)]
)
def test_turns_are_kittis(yaw: float, turn: float) -> None:
    """0 is to the right, and -pi / 2 away from the camera; ours are counter-clockwise from above, KITTI's clockwise."""
    found = float(SMALL.render_labelled(scene(("car", 0, 20, yaw))).boxes3d[0, 1, 6])
    assert math.cos(found - turn) == pytest.approx(1, abs=1e-4) and abs(found) <= math.pi + 1e-6


def test_the_camera_may_turn_and_tilt() -> None:
    """What lies where the camera is turned to is in the middle of the image."""
    for angle in (-0.3, 0.2):
        ahead = scene(("car", -30 * math.sin(angle), 30 * math.cos(angle), 0.0), camera_yaw=angle)
        found = SMALL.render_labelled(ahead)
        assert found.boxes3d[0, 1, [3, 5]].tolist() == pytest.approx([0, 30], abs=1e-4)
        assert math.cos(float(found.boxes3d[0, 1, 6]) - (-math.pi / 2 + angle)) == pytest.approx(1, abs=1e-5)
    up = SMALL.render_labelled(scene(("car", 0, 30, 0.0), pitch=0.1))
    car = mesh_classes()["car"].models[0].vertices  # which leans in the camera's axes
    lowest = ((1.65 - car[:, 2]) * math.cos(0.1) + (30 + car[:, 1]) * math.sin(0.1)).max()
    assert up.boxes3d[0, 1, 4] == pytest.approx(lowest, abs=1e-3)


def test_a_point_of_the_ground_is_where_the_projection_puts_it() -> None:
    """Of the depth map: rows of flat ground have the depth that camera height and focal length give them."""
    found = VIEW.render_labelled(scene(camera_height=2.0))
    p2 = found.projection[0]
    rows = torch.arange(70, 128)
    depth = 2.0 * p2[1, 1] / (rows - p2[1, 2])
    column = round(float(projected(torch.tensor([-0.5, 2.0, 12.0]), p2)[0]))
    torch.testing.assert_close(found.depth[0, 70:, column], depth, rtol=0.03, atol=0.05)


def test_depth_is_about_an_objects_z() -> None:
    found = VIEW.render_labelled(scene(("car", -2.0, 15, 0.0), ("truck", 3.0, 40, 0.0), ("pedestrian", 1.5, 9, 0.3)))
    for place in (1, 2, 3):
        _, width, length, *_, z, _ = found.boxes3d[0, place].tolist()
        depth = found.depth[0][found.instances[0] == place]
        reach = math.hypot(width, length) / 2 + 0.1
        assert len(depth) > 30 and depth.min() >= z - reach and depth.max() <= z + reach


def test_what_is_hidden_or_lower_than_eight_pixels_is_not_seen() -> None:
    things = [("truck", 0, 14, 0), ("pedestrian", 0, 24, 0), ("car", -4, 15, 0), ("car", 8, 35, 0), ("car", 22, 70, 0)]
    found = VIEW.render_labelled(scene(*things))
    assert VIEW.seen(found).tolist() == [[False, True, False, True, True, False]]  # the scenario is not rendered
    height = found.boxes[0, :, 3] - found.boxes[0, :, 1]
    assert found.visibility[0, 2] < 0.1 and height[2] > 8  # hidden
    assert found.visibility[0, 5] > 0.9 and height[5] < 8 < height[4]  # far away


def test_instances_visibility_and_visible_boxes_agree() -> None:
    found = VIEW.render_labelled(crowd())
    used = found.classes >= len(SCENARIOS)
    assert set(found.instances.unique().tolist()) <= {-1, *range(found.classes.shape[1])}
    assert ((found.visibility >= 0) & (found.visibility <= 1 + 1e-6)).all()
    for i, j in used.nonzero().tolist():
        rows, columns = (found.instances[i] == j).nonzero(as_tuple=True)
        if len(rows):
            assert found.visibility[i, j] > 0
            outer = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            visible, whole = found.visible_boxes[i, j], found.boxes[i, j]
            assert torch.allclose(visible, outer, atol=1.01)  # a pixel belongs to what most of its samples show
            assert (whole[:2] <= visible[:2] + 1).all() and (whole[2:] >= visible[2:] - 1).all()
    assert (found.visibility[used] == 0).any() and (found.visibility[used] > 0.9).any()


def test_what_is_not_drawn_has_no_labels() -> None:
    found = SMALL.render_labelled(crowd())
    for unused in (found.classes < 0, (found.classes >= 0) & (found.classes < len(SCENARIOS))):
        assert unused.any()
        for name in ("boxes", "visible_boxes", "boxes3d", "visibility", "truncation", "corners"):
            assert not getattr(found, name)[unused].any(), name
    assert not (found.instances == 0).any()  # the scenario


def test_trees_far_away_have_fewer_triangles_in_the_same_box() -> None:
    trees = mesh_classes()["tree"]
    for near, far in zip(trees.models, trees.far, strict=True):
        assert len(far.triangles) <= len(near.triangles)
        for end in ("min", "max"):
            assert getattr(far.vertices, end)(0) == pytest.approx(getattr(near.vertices, end)(0), abs=1e-3)
    assert sum(len(m.triangles) for m in trees.far) < 0.6 * sum(len(m.triangles) for m in trees.models)
    # what they hide of a street stays much the same
    for model in (0.05, 0.35, 0.75):
        near, far = (
            VIEW.render_labelled(scene(("tree", -2.0, FAR_DISTANCE + step, 0.0, model))) for step in (-0.01, 0.01)
        )
        assert (near.boxes[0, 1] - far.boxes[0, 1]).abs().max() < 6.0  # of 75 pixels
        areas = [float((found.instances == 1).sum()) for found in (near, far)]
        assert areas[0] != areas[1] and 0.75 < areas[1] / areas[0] < 1.33


def test_what_stands_behind_is_hidden() -> None:
    alone = VIEW.render_labelled(scene(("car", 0.0, 20, 0.0)))
    behind = VIEW.render_labelled(scene(("car", 0.0, 20, 0.0), ("pedestrian", 0.2, 10, 0.0)))
    away = VIEW.render_labelled(scene(("car", 0.0, 20, 0.0), ("truck", 0.0, 10, 0.0)))
    assert alone.visibility[0, 1] == 1
    assert 0.3 < behind.visibility[0, 1] < 0.95 and behind.visibility[0, 2] == 1
    assert away.visibility[0, 1] < 0.2
    for found in (behind, away):
        assert torch.equal(found.boxes[0, 1], alone.boxes[0, 1])


def test_truncation_is_the_share_outside() -> None:
    inside, half, outside = (VIEW.render_labelled(scene(("car", x, 10, 0.0))) for x in (0.0, 8.3, 20.0))
    assert inside.truncation[0, 1] == 0 and outside.truncation[0, 1] == 1 and not outside.boxes[0, 1].any()
    assert 0.2 < half.truncation[0, 1] < 0.8
    wanted = box_of(half.boxes3d[0, 1], half.projection[0]) + 0.5
    seen = wanted.clamp(max=416)
    share = 1 - float((seen[2] - seen[0]) / (wanted[2] - wanted[0]))
    assert float(half.truncation[0, 1]) == pytest.approx(share, abs=0.08)
    assert half.boxes[0, 1, 2] == 416


def test_things_stand_on_a_pavement_not_in_it() -> None:
    """15 cm higher than on the road: their feet are at the camera's height less that."""
    raised = VIEW.render_labelled(scene(("pedestrian", 3.5, 12, 0.0), walk_right=3.0))
    level = VIEW.render_labelled(scene(("pedestrian", 3.5, 12, 0.0)))
    assert level.boxes3d[0, 1, 4] == pytest.approx(1.65) and raised.boxes3d[0, 1, 4] == pytest.approx(1.5)
    assert raised.visibility[0, 1] == 1 == level.visibility[0, 1]
    drop = 0.15 * float(level.projection[0, 1, 1]) / 12
    assert float(level.boxes[0, 1, 3] - raised.boxes[0, 1, 3]) == pytest.approx(drop, abs=0.3)


# --- KITTI's own labels hold to the same ---


@NEEDS_KITTI
def test_kittis_labels_mean_what_ours_do() -> None:
    """Its 2D boxes are those of its 3D boxes by the same projection; people drew one, and lasers saw the other."""
    folder = Path(os.environ["MS2_DATA"], "kitti", "training")
    errors, focal = [], []
    for path in sorted((folder / "label_2").glob("*.txt"))[:120]:
        p2 = read_projection(folder / "calib" / path.name)
        focal.append(float(p2[0, 0]))
        for thing in read_labels(path):
            if thing.type == "Car" and thing.truncation == 0 and thing.occlusion == 0 and thing.position[2] < 40:
                box = torch.tensor([*thing.size[:2], thing.size[2], *thing.position, thing.yaw])
                errors.append((box_of(box, p2) - torch.tensor(thing.box)).abs())
    found = torch.stack(errors)
    assert len(found) > 50
    assert found.median() < 2.0 and found.quantile(0.9) < 8
    assert torch.tensor(focal).median() == pytest.approx(KITTI_P2[0][0], abs=15)


@NEEDS_KITTI
def test_a_calibration_file_is_read() -> None:
    path = sorted(Path(os.environ["MS2_DATA"], "kitti", "training", "calib").glob("*.txt"))[0]
    view = StreetView(KITTI_SIZE, calibration=str(path), engine=WarpEngine(1, shadow_size=0))
    assert torch.equal(view.projection, read_projection(path))


def test_a_calibration_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text("P2: 600 0 620 0 0 600 180 0 0 0 1 0\n")
    view = StreetView((125, 414), calibration=str(tmp_path / "calib.txt"))
    assert view.projection[0, 0] == pytest.approx(200) and view.projection[0, 2] == pytest.approx(620 / 3 - 1 / 3)
    wide = view.render_labelled(scene(("car", 0, 20, 0.0))).boxes[0, 1]
    usual = StreetView((125, 414)).render_labelled(scene(("car", 0, 20, 0.0))).boxes[0, 1]
    ratio = float((wide[2] - wide[0]) / (usual[2] - usual[0]))
    assert ratio == pytest.approx(600 / 721.5377, rel=0.02)
    with pytest.raises(UserError, match="there is no such calibration file"):
        StreetView((32, 104), calibration=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("degrees", [40.0, 60.0, 82.0])
def test_a_field_of_view_of_ones_own(degrees: float) -> None:
    """Points on the left and right edges of an image are seen at half the angle; the horizon is in the middle."""
    view = StreetView((90, 160), field_of_view=degrees)
    half = math.radians(degrees) / 2
    for side in (-1, 1):
        column, row = projected(torch.tensor([side * 10 * math.tan(half), 0.0, 10.0]), view.projection).tolist()
        assert column == pytest.approx(79.5 + side * 80, abs=1e-3) and row == pytest.approx(44.5)
    box = view.render_labelled(scene(("car", 0, 20, 0.0))).boxes[0, 1]
    usual = StreetView((375, 1242)).render_labelled(scene(("car", 0, 20, 0.0))).boxes[0, 1]
    ratio = float((box[2] - box[0]) / (usual[2] - usual[0]))
    assert ratio == pytest.approx(80 / math.tan(half) / 721.5377, rel=0.02)


def test_a_camera_is_described_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"both calibration and field_of_view .* give one of them"):
        StreetView(calibration=str(tmp_path / "calib.txt"), field_of_view=60.0)


@pytest.mark.parametrize("size", [(128, 416), (96, 312), (64, 400), (100, 200), (375, 1242)])
def test_the_projection_is_that_of_a_resized_photograph(size: tuple[int, int], tmp_path: Path) -> None:
    """A dot of a photograph is found, after it was brought to a size as a target's are, where the projection says."""
    point = torch.tensor([1.3, 1.1, 14.0])
    p2 = torch.tensor(KITTI_P2)
    column, row = projected(point, p2).tolist()
    y, x = torch.meshgrid(torch.arange(KITTI_SIZE[0]), torch.arange(KITTI_SIZE[1]), indexing="ij")
    dot = (255 * torch.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 8.0**2))).byte()
    Image.fromarray(dot.numpy()).save(tmp_path / "dot.png")
    image = read_image(tmp_path / "dot.png", 1, size, "crop")
    image = torch.as_tensor(image).float().reshape(size)
    rows, columns = torch.arange(size[0]).float(), torch.arange(size[1]).float()
    found = torch.stack([(image.sum(0) * columns).sum(), (image.sum(1) * rows).sum()]) / image.sum()
    assert (found - projected(point, resized_projection(p2, size))).abs().max() < 0.3


def test_another_size_has_the_same_view() -> None:
    """Its boxes are the same fractions of the image, where the sides are rounded to other proportions too."""
    scenes = scene(("car", -3, 9, 0.3), ("pedestrian", 2.5, 8, 0.0), ("truck", 1, 30, 0.0))
    whole, small = VIEW.render_labelled(scenes), VIEW.resized(0.3).render_labelled(scenes)
    assert small.image.shape[2:] == (38, 125) and VIEW.size == (128, 416)
    scale = torch.tensor([416 / 125, 128 / 38]).repeat(2)
    assert (small.boxes * scale - whole.boxes).abs().max() < scale.max()
    assert (small.visibility - whole.visibility).abs().max() < 0.15
    assert torch.equal(VIEW.resized(1.0).render(scenes), VIEW.render(scenes))
    cpu = torch.device("cpu")
    assert VIEW.resized(0.3)._tables_on(cpu) is VIEW._tables_on(cpu), "meshes are not sent to the device again"


# --- streets ---


@pytest.mark.parametrize("curve", [0.0, 0.00005, 0.002, -0.004, 0.0125, -0.0007])
@pytest.mark.parametrize("width", [5.4, 8.0, 16.2])
def test_streets_bend_as_they_should(curve: float, width: float) -> None:
    """The road's middle in the image is that of x = curve y^2 / 2; the road is known by what its width changes."""
    street = {"curve": curve, "road_width": width, "lanes": 4.0 if width > 9 else 2.0}
    colours = {"road_look": 0.1, "verge_left": 0.0, "verge_right": 0.0, "field_look": 0.1, "clouds": 0.0}
    found = VIEW.render(scene(**street, **colours))[0]
    green = found[1] - (found[0] + found[2]) / 2  # grass is green, and roads are grey
    p2 = VIEW.projection
    compared = 0
    for z in (8.0, 12.0, 18.0, 26.0):
        row = round(float(projected(torch.tensor([0.0, 1.65, z]), p2)[1]))
        z = 1.65 * float(p2[1, 1]) / (row - float(p2[1, 2]))
        middle = curve * z**2 / 2 - 1.75
        edges = [float(projected(torch.tensor([middle + side * width / 2, 1.65, z]), p2)[0]) for side in (-1, 1)]
        if not (edges[0] > 6 and edges[1] < 410):
            continue
        road = (green[row] < 0.02).nonzero()[:, 0].float()
        assert float(road.min()) == pytest.approx(edges[0], abs=4.0), z
        assert float(road.max()) == pytest.approx(edges[1], abs=4.0), z
        compared += 1
    assert compared >= (1 if width > 9 else 2)


# --- images ---


@pytest.mark.parametrize("labelled", [False, True])
def test_an_image_does_not_depend_on_its_batch(labelled: bool) -> None:
    scenes = crowd(9)

    def images(part: SceneBatch) -> Tensor:
        return SMALL.render_labelled(part).image if labelled else SMALL.render(part)

    whole = images(scenes)
    assert whole.shape == (9, 3, 32, 104) and whole.min() >= 0 and whole.max() <= 1
    for part in (slice(0, 1), slice(3, 8), torch.tensor([8, 2, 5])):
        assert torch.equal(images(scenes[part]), whole[part])


def test_labels_do_not_depend_on_the_batch() -> None:
    scenes = crowd(9)
    whole, part = SMALL.render_labelled(scenes), SMALL.render_labelled(scenes[4:7])
    for name, values in vars(part).items():
        assert torch.equal(values, getattr(whole, name)[4:7]), name


def test_unused_entries_are_not_read() -> None:
    scenes = crowd(4)
    real = scenes.classes >= len(SCENARIOS)
    noise = {name: torch.where(real, v, torch.nan) for name, v in scenes.attributes.items()}
    clean, noisy = SMALL.render_labelled(scenes), SMALL.render_labelled(scenes.with_attributes(**noise))
    assert all(torch.equal(values, getattr(noisy, name)) for name, values in vars(clean).items())


def test_the_settings_of_the_image() -> None:
    grey = SMALL.render(scene(("car", 0, 12, 0.0), saturation=0.0))
    assert (grey - grey.mean(1, keepdim=True)).abs().max() < 1e-6
    dark, bright = (SMALL.render(scene(exposure=exposure)).mean() for exposure in (0.5, 1.2))
    assert dark < 0.6 * bright
    sharp, soft = (SMALL.render(scene(blur=blur)).diff(dim=3).abs().mean() for blur in (0.0, 1.0))
    assert soft < 0.9 * sharp


# --- settings ---


@pytest.mark.parametrize(("size", "message"), [((0, 104), r"size\[0\] .* not 0"), ((32, -1), r"size\[1\] .* not -1")])
def test_a_size_must_be_positive(size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StreetView(size)


def test_classes_that_cannot_be_drawn() -> None:
    with pytest.raises(UserError, match=r"cannot render a 'cars'\. Did you mean 'car'"):
        StreetView((32, 104), classes=["cars"])


def test_classes_in_another_order_and_number() -> None:
    view = StreetView((32, 104), classes=["tree", "car"], engine=WarpEngine(shadow_size=128))
    ours = scene(("car", 0, 12, 0.3), ("tree", 3, 15, 0.0))
    theirs = SceneBatch(torch.tensor([[-1, 1, 0]]), ours.parents, ours.attributes, ours.environment)
    assert torch.equal(view.render(theirs), SMALL.render(ours))


def test_a_folder_of_assets_is_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no assets folder"):
        StreetView((32, 104), assets=str(tmp_path / "none"))
    corners_of = [(x, y, z) for x in (-1, 1) for y in (0, 3) for z in (-2, 2)]  # y is up in these files
    faces = ["f 1 2 4", "f 1 4 3", "f 5 6 8", "f 5 8 7", "f 1 5 2", "f 2 5 6", "f 3 4 8", "f 3 8 7"]
    broken = tmp_path / "others"
    for folder in (tmp_path / "mine" / "car", broken / "car"):
        folder.mkdir(parents=True)
    (broken / "car" / "broken.obj").write_text("f 1 2 3")
    (tmp_path / "mine" / "car" / "box.obj").write_text(
        "\n".join([*(f"v {x} {y} {z}" for x, y, z in corners_of), *faces])
    )
    view = StreetView((32, 104), assets=str(tmp_path / "mine"))
    assert view.assets == str(tmp_path / "mine")
    height, width, length = view.render_labelled(scene(("car", 0, 20, 0.0))).boxes3d[0, 1, :3].tolist()
    assert (width, length, height) == pytest.approx((2, 4, 3), abs=1e-4)
    with pytest.raises(UserError, match=r"broken\.obj"):
        StreetView((32, 104), assets=str(broken))
    with pytest.warns(UserWarning, match=r"broken\.obj"):
        StreetView((32, 104), assets=str(broken), on_error="skip")


def test_copies_draw_the_same_and_are_small() -> None:
    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.renderer = SMALL

    scenes = crowd(2)
    image = SMALL.render(scenes)
    packed = pickle.dumps(SMALL)
    assert len(packed) < 5000
    for other in (copy.deepcopy(Learner()).renderer, copy.copy(SMALL), pickle.loads(packed)):
        assert torch.equal(other.render(scenes), image)
    assert torch.equal(SMALL.render(scenes), image)


def test_labels_are_of_this_kind() -> None:
    found = SMALL.render_labelled(crowd(2))
    assert isinstance(found, Rendering3D) and found.projection.shape == (2, 3, 4)
