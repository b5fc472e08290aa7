"""Formats of labelled sets, by name."""

from ms2.datasets.formats.base import Format, format_named
from ms2.datasets.formats.coco import Coco
from ms2.datasets.formats.kitti import Kitti
from ms2.datasets.formats.yolo import Yolo

__all__ = ["Coco", "Format", "Kitti", "Yolo", "format_named"]
