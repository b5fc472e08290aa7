"""Formats of labelled sets, each with its writer and its reader."""

from ms2.datasets.formats.base import Format, format_named, format_names
from ms2.datasets.formats.coco import CocoFormat, CocoSet
from ms2.datasets.formats.kitti import KittiFormat, KittiSet
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.formats.yolo import YoloFormat

__all__ = [
    "CocoFormat",
    "CocoSet",
    "Format",
    "GeneratedSet",
    "KittiFormat",
    "KittiSet",
    "YoloFormat",
    "format_named",
    "format_names",
]
