"""Sequences with tracks and flow: KITTI's tracking and flow formats and MOTChallenge's, writers.

A track is an object of a scene: its number is the object's index in the scene graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from ms2.core.errors import UserError
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.formats.kitti import ignored_columns, label_columns
from ms2.datasets.formats.kitti_files import DONT_CARE
from ms2.datasets.plan import Plan
from ms2.datasets.records import Frame, ImageRecord, ObjectLabel
from ms2.datasets.sequences.poses import relative_poses
from ms2.render.scene3d.renderer import Renderer3D
from ms2.world import World

TRUNCATION_LEVELS = (0.15, 0.5)
"""Truncated fractions above which an object has KITTI's truncation level 1 and 2."""
MOT_CLASSES: Mapping[int, int] = {24: 1, 25: 2, 26: 3, 27: 3, 28: 3, 32: 5, 33: 4}
"""MOTChallenge's class by Cityscapes' label id: pedestrian, person on a vehicle, car, motorbike and bicycle. It has no
class for trucks and buses, which are cars here."""


class SequenceFormat(Format, selectable=False):
    """Base class of formats of sequences."""

    def check(self, plan: Plan) -> None:
        """Raise an error unless there are frames, in PNG, which readers of these formats look for.

        Raises:
            UserError: If there are none, or images are others.
        """
        name = type(self).__name__.removesuffix("Format").lower()
        if plan.frames is None:
            raise UserError(f"the format {name} has sequences: give --frames, such as --frames 20 --fps 10")
        if plan.image != "png":
            raise UserError(f"the format {name} has PNG images: leave --image jpeg out, or the format {name}")


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

    Boxes, types and DontCare areas are as in KITTI's detection format, but that truncation has three levels. ``poses``
    has KITTI's odometry format: for each frame the 3 x 4 matrix from its camera's axes to those of the first frame's.
    """

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write labels, calibration and poses of each sequence, and the list of them; link the images."""
        root, listed = "kitti_tracking", []
        for name, frames in sequences(records):
            for record in frames:
                folder.link(f"{root}/training/image_02/{name}/{frame_of(record).frame:06d}.png", record.image.file)
            lines = [line for record in frames for line in _tracking_lines(record)]
            folder.write_if_changed(f"{root}/training/label_02/{name}.txt", "".join(lines))
            projection = frames[0].image.projection
            assert projection is not None
            folder.write_if_changed(f"{root}/training/calib/{name}.txt", tracking_calibration(projection))
            poses = relative_poses([frame_of(record).pose for record in frames])
            text = "".join(" ".join(f"{value:.9e}" for value in pose) + "\n" for pose in poses.reshape(-1, 12).tolist())
            folder.write_if_changed(f"{root}/poses/{name}.txt", text)
            listed.append(f"{name} empty 000000 {len(frames):06d}\n")
        folder.write(f"{root}/evaluate_tracking.seqmap.training", "".join(listed))

    def usage(self) -> str:
        """Return usage with TrackEval."""
        return (
            "KITTI tracking, `kitti_tracking/`; with TrackEval:\n\n"
            "```python\nimport trackeval\n\n"
            'data = trackeval.datasets.Kitti2DBox({"GT_FOLDER": "kitti_tracking/training", '
            '"TRACKERS_FOLDER": "trackers"})\n```'
        )


def _tracking_lines(record: ImageRecord) -> Iterator[str]:
    """Format the lines of a frame."""
    number = frame_of(record).frame
    for label in record.labels:
        level = sum((label.truncation or 0.0) > limit for limit in TRUNCATION_LEVELS)
        columns = label_columns(label, record.image)
        yield f"{number} {label.object} {label.category.capitalize()} {level} {columns}\n"
    for columns in ignored_columns(record):
        yield f"{number} -1 {DONT_CARE} -1 {columns}\n"


def tracking_calibration(projection: Sequence[Sequence[float]]) -> str:
    """Format a calibration file of the tracking format with one camera; the LiDAR and the IMU share its pose."""
    p = " ".join(f"{value:.12e}" for row in projection for value in row)
    still = "1 0 0 0 0 1 0 0 0 0 1 0"
    lines = [*(f"P{i}: {p}" for i in range(4)), "R_rect 1 0 0 0 1 0 0 0 1"]
    return "\n".join([*lines, f"Tr_velo_cam {still}", f"Tr_imu_velo {still}"]) + "\n"


class MotFormat(SequenceFormat):
    """MOTChallenge's format in ``mot``: ``train/ms2-0000/img1``, ``gt/gt.txt``, ``seqinfo.ini``; and ``seqmaps``.

    People and vehicles have tracks, numbered from 1; boxes enclose whole objects within the image, and count from 1.
    Hidden objects of which something is visible are listed, but not to be considered. Other classes are left out.
    """

    def bind(self, world: World) -> None:
        """Remember the world's classes that MOTChallenge has.

        Raises:
            UserError: If it has none.
        """
        ids = world.renderer.cityscapes_ids if isinstance(world.renderer, Renderer3D) else {}
        self.classes = {name: MOT_CLASSES[i] for name, i in ids.items() if i in MOT_CLASSES}
        if not self.classes:
            raise UserError(
                f"the format mot has tracks of people and vehicles, and {type(world.renderer).__name__} shows none: "
                "leave it out"
            )

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
        considered = [(label, label.amodal_bbox, 1) for label in record.labels]
        ignored = [(label, label.bbox, 0) for label in record.hidden]
        for label, box, flag in (*considered, *ignored):
            if label.category in self.classes and box is not None:
                yield self._line(frame_of(record).frame + 1, label, box, flag)

    def _line(self, frame: int, label: ObjectLabel, box: Sequence[float], flag: int) -> str:
        x, y, w, h = box
        place = f"{x + 1:.2f},{y + 1:.2f},{w:.2f},{h:.2f}"
        return f"{frame},{label.object + 1},{place},{flag},{self.classes[label.category]},{label.visibility:.3f}\n"

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
