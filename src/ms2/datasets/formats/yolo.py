"""YOLO."""

import yaml

from ms2.datasets.folder import SetFolder
from ms2.datasets.formats.base import Format, Records, _stem
from ms2.datasets.plan import Plan
from ms2.datasets.records import Record


class Yolo(Format):
    """YOLO: a text file for each image in ``labels``, and ``data.yaml``; boxes of what is visible, as shares."""

    def write(self, folder: SetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write a file for every image."""
        for record in records():
            folder.write_if_changed(f"labels/{_stem(record)}.txt", self._text(record, categories))
        names = dict(enumerate(categories))
        folder.write("data.yaml", yaml.safe_dump({"train": "images", "val": "images", "names": names}, sort_keys=False))

    def _text(self, record: Record, categories: tuple[str, ...]) -> str:
        width, height = record["image"]["width"], record["image"]["height"]
        lines = []
        for found in record["labels"]:
            x, y, w, h = found["bbox"]
            box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(f"{categories.index(found['category'])} {' '.join(f'{v:.6f}' for v in box)}\n")
        return "".join(lines)

    def usage(self) -> str:
        """For Ultralytics."""
        return "YOLO, `labels/` beside `images/`:\n\n```\nyolo detect train data=data.yaml\n```"
