"""Labelled data sets: drawn from a world or a trained run, written in the formats that training scripts read."""

from ms2.datasets.formats import Coco, Format, Kitti, Yolo
from ms2.datasets.generate import generate
from ms2.datasets.images import render_record
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.source import WORLDS, Source, open_source, parser

__all__ = [
    "WORLDS",
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
