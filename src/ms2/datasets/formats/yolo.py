"""YOLO: writer."""

import yaml

from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord


class YoloFormat(Format):
    """YOLO: one text file per image in ``labels``, and ``data.yaml``; boxes of the visible part, normalised."""

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write one label file per image, and ``data.yaml``."""
        for record in records():
            folder.write_if_changed(f"labels/{record.stem}.txt", self._text(record, categories))
        names = dict(enumerate(categories))
        folder.write("data.yaml", yaml.safe_dump({"train": "images", "val": "images", "names": names}, sort_keys=False))

    def _text(self, record: ImageRecord, categories: tuple[str, ...]) -> str:
        width, height = record.image.width, record.image.height
        lines = []
        for label in record.labels:
            assert label.bbox is not None
            x, y, w, h = label.bbox
            (cx, wide), (cy, high) = _interval(x, x + w, width), _interval(y, y + h, height)
            lines.append(f"{categories.index(label.category)} {cx} {cy} {wide} {high}\n")
        return "".join(lines)

    def usage(self) -> str:
        """Return usage with Ultralytics."""
        return "YOLO, `labels/` beside `images/`:\n\n```\nyolo detect train data=data.yaml\n```"


def _interval(low: float, high: float, side: int) -> tuple[str, str]:
    """Format the middle and the length of an interval of pixels as fractions of the image's side.

    Both ends are clipped to the image and rounded to millionths; middle and length are exact for the rounded ends. If
    these were rounded instead, the ends that readers compute from them could lie outside of the image.
    """
    first, last = (round(min(max(end / side, 0.0), 1.0) * 10**6) for end in (low, high))
    return f"{(first + last) / (2 * 10**6):.7f}", f"{(last - first) / 10**6:.6f}"
