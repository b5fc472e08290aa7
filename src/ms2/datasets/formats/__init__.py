"""Formats of labelled sets, each with its writer and its reader."""

from ms2.datasets.formats.base import Format, format_named, format_names
from ms2.datasets.formats.coco import CocoFormat, CocoSet
from ms2.datasets.formats.kitti import KittiFormat, KittiSet
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.formats.nuscenes import NuScenesFormat
from ms2.datasets.formats.panoptic import CityscapesFormat, PanopticFormat
from ms2.datasets.formats.scenes3d import GLBFormat, USDFormat
from ms2.datasets.formats.sequences import KittiFlowFormat, KittiTrackingFormat, MotFormat
from ms2.datasets.formats.shards import ShardsFormat
from ms2.datasets.formats.yolo import YoloFormat

__all__ = [
    "CityscapesFormat",
    "CocoFormat",
    "CocoSet",
    "Format",
    "GLBFormat",
    "GeneratedSet",
    "KittiFlowFormat",
    "KittiFormat",
    "KittiSet",
    "KittiTrackingFormat",
    "MotFormat",
    "NuScenesFormat",
    "PanopticFormat",
    "ShardsFormat",
    "USDFormat",
    "YoloFormat",
    "format_named",
    "format_names",
]
