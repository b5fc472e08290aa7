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
            box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(f"{categories.index(label.category)} {' '.join(f'{v:.6f}' for v in box)}\n")
        return "".join(lines)

    def usage(self) -> str:
        """Return usage with Ultralytics."""
        return "YOLO, `labels/` beside `images/`:\n\n```\nyolo detect train data=data.yaml\n```"
