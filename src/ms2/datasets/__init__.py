"""Labelled data sets: generation, export to common formats, and reading."""

from ms2.datasets.formats import CocoFormat, CocoSet, Format, GeneratedSet, KittiFormat, KittiSet, YoloFormat
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.labelled_set import LabelledSet
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord
from ms2.datasets.rendered_set import RenderedSet
from ms2.datasets.rendering import render_record
from ms2.datasets.stream import LabelledStream

__all__ = [
    "CocoFormat",
    "CocoSet",
    "Format",
    "GeneratedSet",
    "ImageRecord",
    "Job",
    "KittiFormat",
    "KittiSet",
    "LabelledSet",
    "LabelledStream",
    "Plan",
    "RenderedSet",
    "YoloFormat",
    "generate",
    "render_record",
]
