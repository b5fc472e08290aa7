"""Sequences: tracks, flow, poses and their formats, read by others or by strict parsers, and compared with geometry."""

import configparser
import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ms2, python_of, run_reader
from PIL import Image
from test_datasets import SMALL, changed_files, small, tree
from torchvision.datasets import KittiFlow
from torchvision.io import ImageReadMode, decode_png

from ms2.core.errors import UserError
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.formats.nuscenes import TABLES, VERSION, moving
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord
from ms2.datasets.rendering import render_record
from ms2.datasets.sequences.flow import decode_deep, encode_deep, flow_steps
from ms2.datasets.sequences.poses import quaternions, relative_poses

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    # torchvision's own reader of KITTI's flow uses its deprecated decoder
    pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning"),
]
SCENES, FRAMES, FPS = 2, 4, 5.0
PLAN = Plan(
    SCENES, seed=4, maps=("float_depth", "panoptic"), formats=("kittitracking", "mot", "kittiflow", "nuscenes"),
    frames=FRAMES, fps=FPS,
)  # fmt: skip
MOVERS = ("car", "truck", "cyclist", "pedestrian")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = Job(small("driving3d"), PLAN, tmp_path_factory.mktemp("sequences") / "set")
    assert generate(made, progress=False)
    return made


def records(root: Path) -> list[ImageRecord]:
    return [ImageRecord.from_json(json.loads(path.read_text())) for path in sorted((root / "scenes").glob("*.json"))]


def pairs(root: Path) -> list[tuple[ImageRecord, ImageRecord]]:
    """Frames with the next one."""
    found = records(root)
    return [(a, b) for a, b in itertools.pairwise(found) if a.frame.sequence == b.frame.sequence]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def square(pose: Any) -> np.ndarray:
    return np.vstack([np.asarray(pose, float), [0, 0, 0, 1]])


# --- the set ---


def test_objects_are_the_same_in_all_frames(job: Job) -> None:
    found = records(job.root)
    assert len(found) == SCENES * FRAMES
    for before, after in pairs(job.root):
        objects, others = before.scene.objects, after.scene.objects
        assert [o.class_name for o in objects] == [o.class_name for o in others]
        for one, other in zip(objects, others, strict=True):
            fixed = {name: value for name, value in one.attributes.items() if name not in ("x", "y", "yaw")}
            assert fixed.items() <= other.attributes.items()
            moved = math.dist(*([o.attributes["x"], o.attributes["y"]] for o in (one, other)))
            assert moved < 13 / FPS and (moved == 0 or one.class_name in MOVERS)
    assert [(r.frame.sequence, r.frame.frame, r.frame.time) for r in found] == [
        (s, f, f / FPS) for s in range(SCENES) for f in range(FRAMES)
    ]


def test_scenes_are_those_of_single_images_of_the_same_seed(job: Job, tmp_path: Path) -> None:
    single = Job(small("driving3d"), Plan(SCENES, seed=4, formats=()), tmp_path / "single")
    _, scenes, *_ = single.images.sample(0, range(SCENES))
    for i, record in enumerate(records(job.root)[::FRAMES]):
        for one, x in zip(record.scene.objects, scenes.attributes["x"][i].tolist(), strict=False):
            assert one.attributes["x"] == pytest.approx(x, abs=1e-4)


def test_what_is_missing_is_made_again_by_several_machines_to_the_byte(job: Job) -> None:
    expected = tree(job.root)
    for name in ("images/000001.png", "flow_noc/000006.png", "scenes/000003.json", "sequence.gif"):
        (job.root / name).unlink()
    done = [generate(Job(small("driving3d"), PLAN, job.root), 1, rank, 2, progress=False) for rank in (1, 0)]
    assert done == [False, True] and changed_files(tree(job.root), expected) == []


def test_a_frame_is_rendered_again_from_its_record(job: Job) -> None:
    content, name, same = render_record(job.root / f"scenes/{FRAMES - 1:06d}.json")
    assert same and content == (job.root / "images" / name).read_bytes()


def test_the_set_is_read_and_described(job: Job) -> None:
    assert len(GeneratedSet(job.root)) == SCENES * FRAMES
    card = (job.root / "README.md").read_text()
    assert "8 images" in card and "2 sequences of 4 frames" in card and "(sequence.gif)" in card
    with Image.open(job.root / "sequence.gif") as animation:
        assert (animation.n_frames, animation.info["duration"]) == (FRAMES, 1000 / FPS)
    assert json.loads((job.root / "croissant.json").read_text())["description"].startswith("8 synthetic images")


def test_a_long_sequence_is_made_in_parts(tmp_path: Path) -> None:
    """Its flow goes on from the last frame of a part to the first of the next."""
    plan = Plan(1, maps=("flow_occ",), formats=(), frames=35, fps=20.0)
    long = Job(small("driving3d"), plan, tmp_path / "set")
    assert [long.images.indices(block) for block in long.blocks] == [range(32), range(32, 35)]
    assert long.images.shown([31]) == [31, 32] and long.images.shown([34]) == [34]
    part = long.images.sample(0, [30, 31, 32])
    assert part.following == [1, 2, None] and [frame.frame for frame in part.frames] == [30, 31, 32]


# --- flow ---


def expected_flow(job: Job, before: ImageRecord, after: ImageRecord) -> tuple[np.ndarray, np.ndarray]:
    """Flow from depth, panoptic segments, poses and the objects' places alone, and where it is of a moved object."""
    depth = pixels(job.root / before.maps["float_depth"].file).astype(float)
    segment = pixels(job.root / before.maps["panoptic"].file)[..., 0]
    p = np.asarray(before.image.projection, float)
    height, width = depth.shape
    row, column = np.mgrid[:height, :width]
    z = depth - p[2, 3]  # the reference camera's
    x = (column * depth - p[0, 3] - p[0, 2] * z) / p[0, 0]
    y = (row * depth - p[1, 3] - p[1, 2] * z) / p[1, 1]
    world = np.stack([x, y, z, np.ones_like(x)], -1) @ square(before.frame.pose).T
    moved = np.zeros(depth.shape, bool)
    for one in before.segments:
        if one.object is None:
            continue
        a, b = (r.scene.objects[one.object].attributes for r in (before, after))
        turn = b["yaw"] - a["yaw"]
        here = segment == one.id
        dx, dy = world[here, 0] - a["x"], world[here, 1] - a["y"]
        world[here, 0] = b["x"] + math.cos(turn) * dx - math.sin(turn) * dy
        world[here, 1] = b["y"] + math.sin(turn) * dx + math.cos(turn) * dy
        moved |= here & ((a["x"], a["y"]) != (b["x"], b["y"]))
    camera = world @ np.linalg.inv(square(after.frame.pose)).T
    u, v, w = np.moveaxis(camera @ p.T, -1, 0)
    return np.stack([u / w - column, v / w - row]), moved


@pytest.mark.filterwarnings("ignore:invalid value")
def test_flow_is_that_of_the_points(job: Job) -> None:
    """As torchvision reads it: within a step of its encoding, also where objects move."""
    data = KittiFlow(str(job.root), "train")
    assert len(data) == SCENES * (FRAMES - 1)
    seen = 0
    for (first, second, flow, valid), (before, after) in zip(data, pairs(job.root), strict=True):
        assert np.array_equal(first, pixels(job.root / before.image.file))
        assert np.array_equal(second, pixels(job.root / after.image.file))
        expected, moved = expected_flow(job, before, after)
        known = valid & np.isfinite(expected).all(0)
        assert known.mean() > 0.6
        error = np.abs(flow - expected).max(0)
        assert error[known].max() < 0.05
        seen += int((known & moved).sum())
    assert seen > 500


def test_flow_leads_to_what_is_there(job: Job) -> None:
    """Where a point is visible, the next frame shows its segment, and its colour: more so than without flow."""
    for before, after in pairs(job.root):
        steps = decode_deep((job.root / before.maps["flow_noc"].file).read_bytes()).astype(float)
        valid = steps[..., 2] == 1
        everywhere = decode_deep((job.root / before.maps["flow_occ"].file).read_bytes())
        assert np.array_equal(everywhere[valid], steps[valid]) and everywhere[..., 2].sum() > valid.sum()
        row, column = np.nonzero(valid)
        u, v = (steps[valid][:, :2].T - 2**15) / 64
        there = np.floor([row + v + 0.5, column + u + 0.5]).astype(int)
        to = tuple(np.minimum(there, [[valid.shape[0] - 1], [valid.shape[1] - 1]]))  # steps are rounded
        segments = [pixels(job.root / r.maps["panoptic"].file)[..., 0] for r in (before, after)]
        objects = segments[0][valid] > len(job.world.renderer.surfaces)
        assert (segments[0][valid] == segments[1][to])[objects].mean() > 0.99
        colours = [pixels(job.root / r.image.file).astype(float) for r in (before, after)]
        followed, ignored = (np.abs(colours[0][valid] - colours[1][place]).mean() for place in (to, (row, column)))
        assert followed < 0.6 * ignored


def test_a_sphere_of_sky_turns_with_the_camera(job: Job) -> None:
    """The sky's flow is that of a rotation alone: of directions, by the poses."""
    before, after = pairs(job.root)[0]
    steps = decode_deep((job.root / before.maps["flow_occ"].file).read_bytes())
    sky = pixels(job.root / before.maps["panoptic"].file)[..., 0] == 1
    assert sky.sum() > 100 and (steps[sky][:, 2] == 1).all()
    k = np.asarray(before.image.projection)[:, :3]
    turn = np.asarray(after.frame.pose)[:, :3].T @ np.asarray(before.frame.pose)[:, :3]
    row, column = np.nonzero(sky)
    there = k @ turn @ np.linalg.inv(k) @ np.stack([column, row, np.ones_like(row)])
    flow = (steps[sky][:, :2].T.astype(float) - 2**15) / 64
    assert np.abs(there[:2] / there[2] - [column, row] - flow).max() < 0.02


def test_deep_images_are_read_by_others() -> None:
    image = np.random.default_rng(0).integers(0, 2**16, (5, 7, 3)).astype(np.uint16)
    content = torch.frombuffer(bytearray(encode_deep(image)), dtype=torch.uint8)
    assert np.array_equal(decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy(), image)
    assert np.array_equal(decode_deep(encode_deep(image)), image)


def test_flow_has_64_steps_a_pixel_and_none_out_of_range() -> None:
    flow = np.array([[[0.0, 1.5, -600.0, 0.1]], [[0.0, -2.0, 0.0, 0.1]]], np.float32)
    steps = flow_steps(flow, np.array([[True, True, True, False]]))
    assert steps[0].tolist() == [[32768, 32768, 1], [32864, 32640, 1], [0, 0, 0], [0, 0, 0]]


# --- tracking formats ---


def test_kitti_tracking_lines_are_complete(job: Job) -> None:
    """Each line by KITTI's devkit: 17 columns, of these types; a track has one type, and is in a frame once."""
    root, types = job.root / "kitti_tracking", defaultdict(set)
    for number in range(SCENES):
        seen = set()
        frames = records(job.root)[number * FRAMES : (number + 1) * FRAMES]
        for line in (root / f"training/label_02/{number:04d}.txt").read_text().splitlines():
            words = line.split(" ")
            assert len(words) == 17
            frame, track, kind, truncated, occluded = int(words[0]), int(words[1]), words[2], *map(int, words[3:5])
            left, top, right, bottom = map(float, words[6:10])
            assert 0 <= left <= right <= 207 and 0 <= top <= bottom <= 63
            if kind == "DontCare":
                assert (track, truncated, occluded) == (-1, -1, -1)
                continue
            assert kind in ("Car", "Truck", "Cyclist", "Pedestrian") and truncated in (0, 1, 2) and 0 <= occluded <= 3
            assert (frame, track) not in seen
            seen.add((frame, track))
            types[number, track].add(kind)
            (label,) = [one for one in frames[frame].labels if one.object == track]
            assert [float(w) for w in words[10:17]] == [pytest.approx(v, abs=0.006) for v in label.box3d]
        expected = {(r.frame.frame, o.object) for r in frames for o in r.labels if o.category in MOVERS}
        assert seen == expected
        images = sorted((root / f"training/image_02/{number:04d}").iterdir())
        assert [i.read_bytes() for i in images] == [(job.root / r.image.file).read_bytes() for r in frames]
    assert all(len(kinds) == 1 for kinds in types.values())
    listed = (root / "training/evaluate_tracking.seqmap.training").read_text()
    assert listed == "0000 empty 000000 000004\n0001 empty 000000 000004\n"


def test_kitti_calibration_and_poses(job: Job) -> None:
    root, found = job.root / "kitti_tracking", records(job.root)
    lines = dict(line.split(" ", 1) for line in (root / "training/calib/0000.txt").read_text().splitlines())
    assert list(lines) == ["P0:", "P1:", "P2:", "P3:", "R_rect", "Tr_velo_cam", "Tr_imu_velo"]
    assert np.allclose(np.fromstring(lines["P2:"], sep=" ").reshape(3, 4), found[0].image.projection)
    for number in range(SCENES):
        poses = np.loadtxt(root / f"poses/{number:04d}.txt").reshape(-1, 3, 4)
        frames = found[number * FRAMES : (number + 1) * FRAMES]
        first = square(frames[0].frame.pose)
        assert len(poses) == FRAMES and np.allclose(poses[0], np.eye(4)[:3], atol=1e-6)
        for pose, record in zip(poses, frames, strict=True):
            assert np.allclose(first @ square(pose), square(record.frame.pose), atol=1e-5)
            assert np.linalg.det(pose[:, :3]) == pytest.approx(1)
        assert (np.diff(poses[:, 2, 3]) > 0).all()  # the camera drives ahead


def test_mot_boxes_are_those_of_the_labels(job: Job) -> None:
    root = job.root / "mot/train"
    assert (job.root / "mot/seqmaps/train.txt").read_text() == "name\nms2-0000\nms2-0001\n"
    classes = {"pedestrian": 1, "cyclist": 2, "car": 3, "truck": 3}
    for number in range(SCENES):
        folder = root / f"ms2-{number:04d}"
        about = configparser.ConfigParser()
        about.read(folder / "seqinfo.ini")
        assert dict(about["Sequence"]) == {
            "name": folder.name, "imdir": "img1", "framerate": "5", "seqlength": "4", "imwidth": "208",
            "imheight": "64", "imext": ".png",
        }  # fmt: skip
        assert [p.name for p in sorted((folder / "img1").iterdir())] == [f"{i:06d}.png" for i in range(1, FRAMES + 1)]
        rows = np.loadtxt(folder / "gt/gt.txt", delimiter=",")
        assert rows.shape[1] == 9
        frames = records(job.root)[number * FRAMES : (number + 1) * FRAMES]
        expected = [
            [r.frame.frame + 1, o.object + 1, o.amodal_bbox[0] + 1, o.amodal_bbox[1] + 1, *o.amodal_bbox[2:], 1,
             classes[o.category], o.visibility]
            for r in frames for o in r.labels if o.category in MOVERS
        ]  # fmt: skip
        assert np.allclose(rows[rows[:, 6] == 1], expected, atol=0.006)
        assert (rows[rows[:, 6] == 0][:, 7] == 8).all()


# --- nuScenes ---


@pytest.fixture(scope="module")
def tables(job: Job) -> dict[str, dict[str, Any]]:
    """Rows of nuScenes' tables by token."""
    found = {}
    for name in TABLES:
        rows = json.loads((job.root / f"nuscenes/{VERSION}/{name}.json").read_text())
        found[name] = {row["token"]: row for row in rows}
        assert len(found[name]) == len(rows)
    return found


def test_every_token_of_nuscenes_is_of_a_row(tables: dict[str, dict[str, Any]]) -> None:
    others = {"first_sample": "sample", "last_sample": "sample"}
    others |= {"first_annotation": "sample_annotation", "last_annotation": "sample_annotation"}
    followed = 0
    for name, rows in tables.items():
        for row in rows.values():
            for key, value in row.items():
                if key in ("prev", "next"):
                    assert not value or rows[value]["next" if key == "prev" else "prev"] == row["token"]
                elif key.endswith(("_token", "_tokens")):
                    stem = key.rpartition("_token")[0]
                    tokens = value if isinstance(value, list) else [value]
                    assert all(token in tables[others.get(stem, stem)] for token in tokens), (name, key)
                    followed += len(tokens)
    assert followed > 100
    assert len(tables["sample"]) == len(tables["sample_data"]) == SCENES * FRAMES and len(tables["scene"]) == SCENES


def test_chains_of_nuscenes_are_in_order_of_time(tables: dict[str, dict[str, Any]]) -> None:
    for scene in tables["scene"].values():
        chain = [tables["sample"][scene["first_sample_token"]]]
        while chain[-1]["next"]:
            chain.append(tables["sample"][chain[-1]["next"]])
        assert chain[-1]["token"] == scene["last_sample_token"] and len(chain) == scene["nbr_samples"] == FRAMES
        assert np.diff([sample["timestamp"] for sample in chain]).tolist() == [1e6 / FPS] * (FRAMES - 1)
    for instance in tables["instance"].values():
        track = [tables["sample_annotation"][instance["first_annotation_token"]]]
        while track[-1]["next"]:
            track.append(tables["sample_annotation"][track[-1]["next"]])
        assert track[-1]["token"] == instance["last_annotation_token"] and len(track) == instance["nbr_annotations"]
        assert {one["instance_token"] for one in track} == {instance["token"]}


def rotation(quaternion: list[float]) -> np.ndarray:
    """Rotation matrix of a quaternion w, x, y, z."""
    w, x, y, z = quaternion
    assert math.hypot(w, x, y, z) == pytest.approx(1)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def test_boxes_of_nuscenes_project_onto_ours(job: Job, tables: dict[str, dict[str, Any]]) -> None:
    """Through its chain of poses, as the devkit does: onto the projection of KITTI's box, which holds the 2D box."""
    shots = {row["sample_token"]: row for row in tables["sample_data"].values()}
    by_file = {(job.root / r.image.file).read_bytes(): r for r in records(job.root)}
    seen = 0
    for note in tables["sample_annotation"].values():
        shot = shots[note["sample_token"]]
        record = by_file[(job.root / "nuscenes" / shot["filename"]).read_bytes()]
        ego, sensor = tables["ego_pose"][shot["ego_pose_token"]], tables["calibrated_sensor"]
        camera = sensor[shot["calibrated_sensor_token"]]
        width, length, height = note["size"]
        points = CORNERS * [length, width, height] @ rotation(note["rotation"]).T + note["translation"]
        for pose in (ego, camera):
            points = (points - pose["translation"]) @ rotation(pose["rotation"])
        if points[:, 2].min() < 0.5:
            continue  # beside the camera
        there = points @ np.asarray(camera["camera_intrinsic"]).T
        found = there[:, :2] / there[:, 2:]
        matches = []
        for label in record.labels:
            h, w, size, x, y, z, yaw = label.box3d
            corners = (CORNERS * [size, h, w]) @ [
                [math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]
            ] + [x, y - h / 2, z]  # fmt: skip
            expected = np.c_[corners, np.ones(8)] @ np.asarray(record.image.projection).T
            expected = expected[:, :2] / expected[:, 2:]
            error = max(np.abs(found.min(0) - expected.min(0)).max(), np.abs(found.max(0) - expected.max(0)).max())
            if error < 0.01 and label.category in MOVERS:
                matches.append(label)
        (label,) = matches
        left, top, w, h = label.amodal_bbox
        (x0, y0), (x1, y1) = found.min(0) + 0.5, found.max(0) + 0.5
        assert x0 < left + 1 and y0 < top + 1 and x1 > left + w - 1 and y1 > top + h - 1
        assert note["num_lidar_pts"] == label.area
        seen += 1
    assert seen > 10


def test_cars_axes_are_level_and_their_camera_looks_ahead(tables: dict[str, dict[str, Any]]) -> None:
    for pose in tables["ego_pose"].values():
        assert np.allclose(rotation(pose["rotation"])[2], [0, 0, 1]) and pose["translation"][2] == 0
    for camera in tables["calibrated_sensor"].values():
        assert rotation(camera["rotation"])[:, 2] == pytest.approx([1, 0, 0], abs=0.03)
        assert camera["translation"][2] == pytest.approx(1.66, abs=0.1)


def test_attributes_tell_what_moves(job: Job, tables: dict[str, dict[str, Any]]) -> None:
    names = {row["name"] for row in tables["category"].values()}
    assert names == {"vehicle.car", "vehicle.truck", "vehicle.bicycle", "human.pedestrian.adult"}
    used = {tables["attribute"][t]["name"] for n in tables["sample_annotation"].values() for t in n["attribute_tokens"]}
    assert {"vehicle.moving", "vehicle.parked"} <= used
    places = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0.0]])
    assert moving(places, np.arange(5.0)).tolist() == [False, True, True, False, False]


# --- bad input ---


@pytest.mark.parametrize(
    ("world", "plan", "message"),
    [
        ("driving3d", {"formats": ("mot",)}, "the format mot has sequences: give --frames"),
        ("driving3d", {"formats": ("nuscenes",), "frames": 2, "image": "jpeg"}, "the format nuscenes has PNG images"),
        ("driving3d", {"maps": ("flow_occ",)}, "give --frames 2, or more"),
        ("driving3d", {"maps": ("flow_noc",), "frames": 1}, "give --frames 2, or more"),
        ("driving3d", {"frames": 200}, r"no room to drive: 200 frames at 10 per second"),
        ("multimnist", {"frames": 2}, r"scenes of \w+ do not move: sequences \(--frames\) are of 3D worlds"),
        ("aerial2d", {"frames": 2, "formats": ("mot",)}, "the format mot has tracks of people and vehicles"),
    ],
)
def test_bad_input_is_named(world: str, plan: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        generate(Job(small(world), Plan(2, **{"formats": (), **plan}), tmp_path / "set"), progress=False)
    assert not (tmp_path / "set" / "scenes").exists()


def test_frames_are_given_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--num_scenes", "1", "--frames", "2", "--fps", "4", "--workers", "1", "--output", str(tmp_path / "set")]
    ms2(["generate", "driving3d", *words, *SMALL["driving3d"]])
    assert "2 images: " in capsys.readouterr().out
    assert [record.frame.time for record in records(tmp_path / "set")] == [0, 0.25]


# --- poses ---


def test_quaternions_and_relative_poses_of_known_rotations() -> None:
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert np.allclose(quaternions(quarter), [math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    first, second = np.c_[quarter, [1.0, 2, 3]], np.c_[quarter @ quarter, [1.0, 3, 3]]
    assert np.allclose(relative_poses([first.tolist(), second.tolist()]), [np.eye(4)[:3], np.c_[quarter, [1.0, 0, 0]]])


# --- other readers, in environments of their own ---


@pytest.mark.parametrize("reader", ["trackeval", "nuscenes"])
def test_other_readers_agree(reader: str, job: Job, tmp_path: Path) -> None:
    """TrackEval gives the truth a perfect score; nuScenes' devkit projects its boxes around ours."""
    run_reader(python_of(reader), reader, job.root, tmp_path)
