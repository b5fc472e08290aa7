"""Sequences with tracks and flow: KITTI's tracking and flow formats and MOTChallenge's, writers.

A track is an object of a scene: its number is the object's index in the scene graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from ms2.core.errors import UserError
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.formats.kitti import ignored_columns, label_columns
from ms2.datasets.formats.kitti_files import DONT_CARE
from ms2.datasets.plan import Plan
from ms2.datasets.records import Frame, ImageRecord
from ms2.datasets.sequences.poses import relative_poses
from ms2.render.scene3d.renderer import Renderer3D
from ms2.world import World

TRUNCATION_LEVELS = (0.15, 0.5)
"""Truncated fractions above which an object has KITTI's truncation level 1 and 2."""
KITTI_TYPES: Mapping[int, str] = {
    24: "Pedestrian", 25: "Cyclist", 26: "Car", 27: "Truck", 28: "Misc", 31: "Tram", 32: "Misc", 33: "Misc",
}  # fmt: skip
"""KITTI's type by Cityscapes' label id."""
MOT_CLASSES: Mapping[int, int] = {24: 1, 25: 2, 26: 3, 27: 3, 28: 3, 32: 5, 33: 4}
"""MOTChallenge's class by Cityscapes' label id: pedestrian, person on a vehicle, car, motorbike and bicycle. It has no
class for trucks and buses, which are cars here."""

DISTRACTOR = 8
"""MOTChallenge's class of what evaluation leaves out."""


class SequenceFormat(Format, selectable=False):
    """Base class of formats of sequences.

    Attributes:
        types: What the format calls classes of people and vehicles, by Cityscapes' label id; empty if it has no tracks.
        classes: The same by the world's classes.
    """

    types: Mapping[int, Any] = {}
    classes: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """Name by which users select the format."""
        return type(self).__name__.removesuffix("Format").lower()

    def check(self, plan: Plan) -> None:
        """Raise an error unless there are frames, in PNG, which readers of these formats look for.

        Raises:
            UserError: If there are none, or images are others.
        """
        if plan.frames is None:
            raise UserError(f"the format {self.name} has sequences: give --frames, such as --frames 20 --fps 10")
        if plan.image != "png":
            raise UserError(f"the format {self.name} has PNG images: leave --image jpeg out, or the format {self.name}")

    def bind(self, world: World) -> None:
        """Remember the world's people and vehicles.

        Raises:
            UserError: If it has none that the format needs.
        """
        ids = world.renderer.cityscapes_ids if isinstance(world.renderer, Renderer3D) else {}
        self.classes = {name: self.types[i] for name, i in ids.items() if i in self.types}
        if self.types and not self.classes:
            raise UserError(
                f"the format {self.name} has tracks of people and vehicles, and {type(world.renderer).__name__} shows "
                "none in 3D: leave it out"
            )


def frame_of(record: ImageRecord) -> Frame:
    """Return where a record is in its sequence, which formats of sequences have checked."""
    assert record.frame is not None
    return record.frame


def sequences(records: Records) -> Iterator[tuple[str, list[ImageRecord]]]:
    """Iterate over sequences: their number in four digits, and the records of their frames."""
    for number, group in groupby(records(), lambda record: frame_of(record).sequence):
        yield f"{number:04d}", list(group)


class KittiTrackingFormat(SequenceFormat):
    """KITTI's tracking format in ``kitti_tracking``: ``training/image_02``, ``label_02``, ``calib``; and ``poses``.

    People and vehicles have tracks; other classes are left out. Boxes and DontCare areas are as in KITTI's detection
    format, but that truncation has three levels. ``poses`` has KITTI's odometry format: for each frame the 3 x 4 matrix
    from its camera's axes to those of the first frame's.
    """

    types = KITTI_TYPES

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write labels, calibration and poses of each sequence, and the list of them; link the images."""
        root, listed = "kitti_tracking", []
        for name, frames in sequences(records):
            for record in frames:
                folder.link(f"{root}/training/image_02/{name}/{frame_of(record).frame:06d}.png", record.image.file)
            lines = [line for record in frames for line in self._lines(record)]
            folder.write_if_changed(f"{root}/training/label_02/{name}.txt", "".join(lines))
            projection = frames[0].image.projection
            assert projection is not None
            folder.write_if_changed(f"{root}/training/calib/{name}.txt", tracking_calibration(projection))
            poses = relative_poses([frame_of(record).pose for record in frames])
            text = "".join(" ".join(f"{value:.9e}" for value in pose) + "\n" for pose in poses.reshape(-1, 12).tolist())
            folder.write_if_changed(f"{root}/poses/{name}.txt", text)
            listed.append(f"{name} empty 000000 {len(frames):06d}\n")
        folder.write(f"{root}/training/evaluate_tracking.seqmap.training", "".join(listed))

    def _lines(self, record: ImageRecord) -> Iterator[str]:
        """Format the lines of a frame."""
        number = frame_of(record).frame
        for label in record.labels:
            if label.category in self.classes:
                level = sum((label.truncation or 0.0) > limit for limit in TRUNCATION_LEVELS)
                columns = label_columns(label, record.image)
                yield f"{number} {label.object} {self.classes[label.category]} {level} {columns}\n"
        hidden = [label for label in record.hidden if label.category in self.classes]
        for columns in ignored_columns(hidden, record.image):
            yield f"{number} -1 {DONT_CARE} -1 {columns}\n"

    def usage(self) -> str:
        """Return usage with TrackEval."""
        return (
            "KITTI tracking, `kitti_tracking/`; with TrackEval:\n\n"
            "```python\nimport trackeval\n\n"
            'data = trackeval.datasets.Kitti2DBox({"GT_FOLDER": "kitti_tracking/training", '
            '"SPLIT_TO_EVAL": "training", "TRACKERS_FOLDER": "trackers"})\n```'
        )


def tracking_calibration(projection: Sequence[Sequence[float]]) -> str:
    """Format a calibration file of the tracking format with one camera; the LiDAR and the IMU share its pose."""
    p = " ".join(f"{value:.12e}" for row in projection for value in row)
    still = "1 0 0 0 0 1 0 0 0 0 1 0"
    lines = [*(f"P{i}: {p}" for i in range(4)), "R_rect 1 0 0 0 1 0 0 0 1"]
    return "\n".join([*lines, f"Tr_velo_cam {still}", f"Tr_imu_velo {still}"]) + "\n"


class MotFormat(SequenceFormat):
    """MOTChallenge's format in ``mot``: ``train/ms2-0000/img1``, ``gt/gt.txt``, ``seqinfo.ini``; and ``seqmaps``.

    People and vehicles have tracks, numbered from 1; boxes enclose whole objects within the image, and count from 1.
    What is visible of hidden objects is a distractor, which evaluation leaves out. Other classes are left out.
    """

    types = MOT_CLASSES

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write boxes and description of each sequence, and the list of them; link the images."""
        names = []
        for number, frames in sequences(records):
            name = f"ms2-{number}"
            names.append(name)
            for record in frames:
                folder.link(f"mot/train/{name}/img1/{frame_of(record).frame + 1:06d}.png", record.image.file)
            lines = [line for record in frames for line in self._lines(record)]
            folder.write_if_changed(f"mot/train/{name}/gt/gt.txt", "".join(lines))
            image = frames[0].image
            folder.write_if_changed(
                f"mot/train/{name}/seqinfo.ini",
                f"[Sequence]\nname={name}\nimDir=img1\nframeRate={plan.fps:g}\nseqLength={len(frames)}\n"
                f"imWidth={image.width}\nimHeight={image.height}\nimExt=.png\n",
            )
        folder.write("mot/seqmaps/train.txt", "".join(f"{name}\n" for name in ["name", *names]))

    def _lines(self, record: ImageRecord) -> Iterator[str]:
        """Format the lines of a frame: frame, track, box, whether to consider it, class, visible fraction."""
        shown = [(label, label.amodal_bbox, f"1,{self.classes.get(label.category)}") for label in record.labels]
        hidden = [(label, label.bbox, f"0,{DISTRACTOR}") for label in record.hidden]
        for label, box, kind in (*shown, *hidden):
            if label.category in self.classes and box is not None:
                x, y, w, h = box
                place = f"{x + 1:.2f},{y + 1:.2f},{w:.2f},{h:.2f}"
                yield f"{frame_of(record).frame + 1},{label.object + 1},{place},{kind},{label.visibility:.3f}\n"

    def usage(self) -> str:
        """Return usage with TrackEval."""
        return (
            "MOTChallenge, `mot/`; with TrackEval:\n\n"
            "```python\nimport trackeval\n\n"
            'data = trackeval.datasets.MotChallenge2DBox({"GT_FOLDER": "mot/train", "TRACKERS_FOLDER": "trackers", '
            '"SEQMAP_FILE": "mot/seqmaps/train.txt", "SKIP_SPLIT_FOL": True})\n```'
        )


class KittiFlowFormat(SequenceFormat):
    """KITTI's optical flow format in ``KittiFlow``: pairs of frames, flow of all points and of visible ones.

    Pairs are numbered; the frames are ``training/image_2/NUMBER_10.png`` and ``NUMBER_11.png``, and ``NUMBER_10.png``
    in ``flow_occ`` and ``flow_noc`` is the motion from the one to the other.
    """

    maps = ("flow_occ", "flow_noc")

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Link the images and the flow of each pair of frames."""
        number = 0
        for _, frames in sequences(records):
            for record, after in pairwise(frames):
                name = f"training/image_2/{number:06d}"
                folder.link(f"KittiFlow/{name}_10.png", record.image.file)
                folder.link(f"KittiFlow/{name}_11.png", after.image.file)
                for kind in self.maps:
                    folder.link(f"KittiFlow/training/{kind}/{number:06d}_10.png", record.maps[kind].file)
                number += 1

    def usage(self) -> str:
        """Return usage with torchvision."""
        return (
            "KITTI's optical flow, `KittiFlow/`:\n\n"
            "```python\nfrom torchvision.datasets import KittiFlow\n\n"
            'first, second, flow, valid = KittiFlow(".", "train")[0]\n```'
        )
