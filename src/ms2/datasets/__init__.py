"""Labelled data sets: drawn from a world or a trained run, written in the formats that training scripts read."""

from ms2.datasets.formats.base import Format
from ms2.datasets.formats.coco import Coco
from ms2.datasets.formats.kitti import Kitti
from ms2.datasets.formats.yolo import Yolo
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import render_record
from ms2.models.opening import Source, open_source, parser

__all__ = [
    "Coco",
    "Format",
    "Job",
    "Kitti",
    "Plan",
    "Source",
    "Yolo",
    "generate",
    "open_source",
    "parser",
    "render_record",
]
