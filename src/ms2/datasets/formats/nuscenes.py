"""nuScenes' schema with one camera: writer (https://www.nuscenes.org/nuscenes#data-format)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from jaxtyping import Bool, Float

from ms2.core.hashing import digest
from ms2.core.images import encode
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Records
from ms2.datasets.formats.sequences import SequenceFormat, frame_of, sequences
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord, ObjectLabel
from ms2.datasets.sequences.poses import quaternions, square_poses

Row = dict[str, Any]
VERSION = "v1.0-ms2"
CHANNEL = "CAM_FRONT"
CATEGORIES: Mapping[int, str] = {
    24: "human.pedestrian.adult", 25: "vehicle.bicycle", 26: "vehicle.car", 27: "vehicle.truck",
    28: "vehicle.bus.rigid", 32: "vehicle.motorcycle", 33: "vehicle.bicycle",
}  # fmt: skip
"""nuScenes' category by Cityscapes' label id; a rider is part of the bicycle, as in nuScenes."""
ATTRIBUTES: Mapping[str, Sequence[str]] = {
    "human": ("pedestrian.moving", "pedestrian.standing", "pedestrian.standing"),
    "vehicle": ("vehicle.moving", "vehicle.stopped", "vehicle.parked"),
    "cycle": ("cycle.with_rider", "cycle.with_rider", "cycle.with_rider"),
}
"""Attributes of what moves, of what stands for now, and of what never moves, by kind."""
VISIBILITIES: Mapping[str, str] = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}
"""Levels of the visible fraction by token."""
VISIBILITY_LIMITS = (0.4, 0.6, 0.8)
MIN_SPEED = 0.1
"""Speed in m/s from which objects move: positions are rounded to a millimetre."""
START, SPACING = 1_500_000_000_000_000, 1_000_000_000
"""Time in microseconds of the first frame of the first scene, and that between the first frames of scenes."""
TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample", "sample_annotation",
    "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
EGO_FROM_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation from the axes of a level camera, x right, y down, z ahead, to a car's, x ahead, y left, z up."""


class Box(NamedTuple):
    """An annotated object in one frame, in the world's axes.

    Attributes:
        label: Its label.
        centre: Its centre.
        rotation: Quaternion w, x, y, z.
        size: Width, length, height.
    """

    label: ObjectLabel
    centre: Float[np.ndarray, "3"]
    rotation: Sequence[float]
    size: Sequence[float]


class NuScenesFormat(SequenceFormat):
    """nuScenes' tables in ``nuscenes/v1.0-ms2``, and the images of one camera in ``nuscenes/samples/CAM_FRONT``.

    Each frame is a sample. People and vehicles are annotated, at all frames in which they are labelled; other classes
    are left out. The car's axes are below the camera, on the ground; the global ones are those of the scene, z up.
    Boxes stand upright in the camera's axes, as KITTI's do. There is no LiDAR: ``num_lidar_pts`` is the number of
    visible pixels, as evaluation leaves out what has no points.
    """

    types = CATEGORIES

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write the tables; link the images."""
        tables: dict[str, list[str]] = {name: [] for name in TABLES}
        for table, rows in self._common_rows().items():
            tables[table] += map(_line, rows)
        for number, frames in sequences(records):
            for record in frames:
                folder.link(f"nuscenes/{_file_name(record)}", record.image.file)
            for table, rows in self._scene_rows(f"scene-{number}", frames).items():
                tables[table] += map(_line, rows)
        for table, lines in tables.items():
            folder.write(f"nuscenes/{VERSION}/{table}.json", _array(lines))
        folder.write("nuscenes/maps/empty.png", encode(np.full((16, 16), 255, np.uint8), "png"))

    def usage(self) -> str:
        """Return usage with nuScenes' devkit."""
        return (
            "nuScenes' tables, `nuscenes/`; with nuscenes-devkit:\n\n"
            "```python\nfrom nuscenes import NuScenes\n\n"
            f'data = NuScenes("{VERSION}", dataroot="nuscenes")\n'
            f'path, boxes, camera = data.get_sample_data(data.sample[0]["data"]["{CHANNEL}"])\n```'
        )

    def _common_rows(self) -> dict[str, list[Row]]:
        """Return the rows that scenes share."""
        names = dict.fromkeys(self.classes.values())
        attributes = dict.fromkeys(name for options in ATTRIBUTES.values() for name in options)
        log = {"logfile": "ms2", "vehicle": "ms2", "date_captured": "2020-01-01", "location": "ms2"}
        world_map = {"category": "semantic_prior", "filename": "maps/empty.png", "log_tokens": [token("log")]}
        return {
            "log": [{"token": token("log"), **log}],
            "map": [{"token": token("map"), **world_map}],
            "sensor": [{"token": token("sensor"), "channel": CHANNEL, "modality": "camera"}],
            "category": [{"token": token("category", name), "name": name, "description": ""} for name in names],
            "attribute": [{"token": token("attribute", name), "name": name, "description": ""} for name in attributes],
            "visibility": [{"token": key, "level": name, "description": ""} for key, name in VISIBILITIES.items()],
        }

    def _scene_rows(self, scene: str, frames: Sequence[ImageRecord]) -> dict[str, list[Row]]:
        """Return the rows of a scene."""
        poses = square_poses([frame_of(record).pose for record in frames])
        ego, sensor = car_and_camera(poses)
        times = [_time(record) for record in frames]
        first, last = token("sample", scene, 0), token("sample", scene, len(frames) - 1)
        description = {"name": scene, "description": "", "log_token": token("log"), "nbr_samples": len(frames)}
        ends = {"first_sample_token": first, "last_sample_token": last}
        chain = [_links("sample", scene, i, len(frames)) for i in range(len(frames))]
        shots = [_links("sample_data", scene, i, len(frames)) for i in range(len(frames))]
        turns = quaternions(ego[:, :3, :3]).tolist()
        boxes = [self._boxes(record, pose) for record, pose in zip(frames, poses, strict=True)]
        return {
            "scene": [{"token": token("scene", scene), **description, **ends}],
            "calibrated_sensor": [_calibration(scene, sensor[0], frames[0])],
            "sample": [
                {**links, "timestamp": time, "scene_token": token("scene", scene)}
                for links, time in zip(chain, times, strict=True)
            ],
            "ego_pose": [
                {
                    "token": token("ego_pose", scene, i),
                    "timestamp": time,
                    "rotation": turn,
                    "translation": pose[:3, 3].tolist(),
                }
                for i, (time, turn, pose) in enumerate(zip(times, turns, ego, strict=True))
            ],
            "sample_data": [_sample_data(scene, i, frames[i], shots[i], times[i]) for i in range(len(frames))],
            **self._annotations(scene, boxes, times),
        }

    def _boxes(self, record: ImageRecord, pose: Float[np.ndarray, "4 4"]) -> list[Box]:
        """Convert a frame's 3D boxes from the camera's axes to the world's."""
        labels = [label for label in record.labels if label.category in self.classes and label.box3d is not None]
        if not labels:
            return []
        height, width, length, x, y, z, yaw = np.array([label.box3d for label in labels]).T
        centre = np.stack([x, y - height / 2, z], -1) @ pose[:3, :3].T + pose[:3, 3]
        cos, sin, none, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
        # columns: the box's axes, ahead, left and up, in the camera's
        axes = np.stack([cos, sin, none, none, none, -one, -sin, cos, none], -1).reshape(-1, 3, 3)
        turns = quaternions(pose[:3, :3] @ axes).tolist()
        sizes = np.stack([width, length, height], -1).tolist()
        return [Box(*values) for values in zip(labels, centre, turns, sizes, strict=True)]

    def _annotations(self, scene: str, boxes: Sequence[Sequence[Box]], times: Sequence[int]) -> dict[str, list[Row]]:
        """Return the rows of instances, one after the other, and of their annotations."""
        tracks: dict[int, list[tuple[int, Box]]] = defaultdict(list)
        for i, found in enumerate(boxes):
            for box in found:
                tracks[box.label.object].append((i, box))
        rows: dict[str, list[Row]] = {"instance": [], "sample_annotation": []}
        for number, track in sorted(tracks.items()):
            category = self.classes[track[0][1].label.category]
            tokens = [token("sample_annotation", scene, i, number) for i, _ in track]
            rows["instance"].append(
                {
                    "token": token("instance", scene, number),
                    "category_token": token("category", category),
                    "nbr_annotations": len(track),
                    "first_annotation_token": tokens[0],
                    "last_annotation_token": tokens[-1],
                }
            )
            centres = np.stack([box.centre for _, box in track])
            moves = moving(centres, np.array([times[i] for i, _ in track]) / 1e6)
            for k, (i, box) in enumerate(track):
                rows["sample_annotation"].append(
                    {
                        "token": tokens[k],
                        "sample_token": token("sample", scene, i),
                        "instance_token": token("instance", scene, number),
                        "visibility_token": str(1 + sum(box.label.visibility >= limit for limit in VISIBILITY_LIMITS)),
                        "attribute_tokens": _attributes(category, moves, k),
                        "translation": box.centre.tolist(),
                        "size": box.size,
                        "rotation": box.rotation,
                        "prev": tokens[k - 1] if k else "",
                        "next": tokens[k + 1] if k + 1 < len(tokens) else "",
                        "num_lidar_pts": box.label.area or 0,
                        "num_radar_pts": 0,
                    }
                )
        return rows


def token(*keys: str | int) -> str:
    """Return the token of a row: the same for the same keys."""
    return digest("\x1f".join(map(str, keys)), 16)


def car_and_camera(
    poses: Float[np.ndarray, "n 4 4"],
) -> tuple[Float[np.ndarray, "n 4 4"], Float[np.ndarray, "n 4 4"]]:
    """Split cameras' poses into the car's, level and on the ground below, and the camera's in the car's axes.

    Args:
        poses: From the camera's axes to the world's.

    Returns:
        From the car's axes to the world's, and from the camera's to the car's.
    """
    ahead = poses[:, :2, 2]
    cos, sin = (ahead / np.linalg.norm(ahead, axis=1, keepdims=True)).T
    car = np.tile(np.eye(4), (len(poses), 1, 1))
    car[:, 0, 0], car[:, 0, 1], car[:, 1, 0], car[:, 1, 1] = cos, -sin, sin, cos
    car[:, :2, 3] = poses[:, :2, 3]
    return car, np.linalg.inv(car) @ poses


def moving(centres: Float[np.ndarray, "n 3"], times: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"] | None:
    """Return whether an object moves at each time; None if there is but one.

    Args:
        centres: Its positions.
        times: The times in seconds.
    """
    if len(times) < 2:
        return None
    fast = np.linalg.norm(np.diff(centres, axis=0), axis=1) > MIN_SPEED * np.diff(times)
    return np.append(fast, False) | np.append(False, fast)


def _attributes(category: str, moves: Bool[np.ndarray, " n"] | None, k: int) -> list[str]:
    """Return the tokens of an annotation's attributes; none where it is not known whether the object moves."""
    kind = "cycle" if category in ("vehicle.bicycle", "vehicle.motorcycle") else category.split(".", maxsplit=1)[0]
    if moves is None:
        return []
    state = 0 if moves[k] else 1 if moves.any() else 2
    return [token("attribute", ATTRIBUTES[kind][state])]


def _calibration(scene: str, pose: Float[np.ndarray, "4 4"], record: ImageRecord) -> Row:
    """Return the camera's row: nuScenes' projection has no fourth column, so the pose takes what it shifts."""
    projection = np.asarray(record.image.projection, float)
    intrinsics = projection[:, :3]
    shift = np.linalg.solve(intrinsics, projection[:, 3])  # from the axes of the labels to the colour camera's
    return {
        "token": token("calibrated_sensor", scene),
        "sensor_token": token("sensor"),
        "translation": (pose[:3, 3] - pose[:3, :3] @ shift).tolist(),
        "rotation": quaternions(pose[:3, :3]).tolist(),
        "camera_intrinsic": intrinsics.tolist(),
    }


def _sample_data(scene: str, i: int, record: ImageRecord, links: Row, time: int) -> Row:
    return {
        **links,
        "sample_token": token("sample", scene, i),
        "ego_pose_token": token("ego_pose", scene, i),
        "calibrated_sensor_token": token("calibrated_sensor", scene),
        "timestamp": time,
        "fileformat": "png",
        "is_key_frame": True,
        "height": record.image.height,
        "width": record.image.width,
        "filename": _file_name(record),
    }


def _file_name(record: ImageRecord) -> str:
    frame = frame_of(record)
    return f"samples/{CHANNEL}/scene-{frame.sequence:04d}__{CHANNEL}__{_time(record)}.png"


def _time(record: ImageRecord) -> int:
    """Return a frame's time in microseconds."""
    frame = frame_of(record)
    return START + frame.sequence * SPACING + round(frame.time * 1e6)


def _links(table: str, scene: str, i: int, number: int) -> Row:
    """Return the token of a row of a scene's chain, and those of the rows before and after it."""
    before = token(table, scene, i - 1) if i else ""
    return {
        "token": token(table, scene, i),
        "prev": before,
        "next": token(table, scene, i + 1) if i + 1 < number else "",
    }


def _array(lines: Sequence[str]) -> Iterator[str]:
    yield "[\n"
    for i, line in enumerate(lines):
        yield (",\n" if i else "") + line
    yield "\n]\n"


def _line(row: Row) -> str:
    return orjson.dumps(row).decode()
