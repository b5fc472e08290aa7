"""KITTI's object detection format."""

import math
from typing import Any

from ms2.core.errors import UserError
from ms2.datasets.folder import SetFolder
from ms2.datasets.formats.base import Format, Records, _edges, _stem
from ms2.datasets.plan import Plan
from ms2.datasets.records import Record
from ms2.render.scene3d.calibration import calibration_text

OCCLUDED = (0.8, 0.5)
"""Visible shares from which on an object counts as fully visible, or as partly occluded, by KITTI's levels."""
UNKNOWN = "-1 -1 -1 -1000 -1000 -1000 -10"
"""KITTI's size, place and turn of an object of which only the box in the image is known."""


class Kitti(Format):
    """KITTI's object detection layout: ``training/image_2``, ``label_2``, ``calib`` and ``ImageSets/train.txt``.

    Boxes are around whole objects, cut by the image's edges, as KITTI's are. Types are the classes' names, capitalised.
    Hidden objects of which something shows are DontCare. Worlds without a third dimension have no 3D boxes, which
    KITTI writes as -1 and -1000, and no ``calib``.
    """

    def check(self, plan: Plan) -> None:
        """KITTI's readers look for PNG files.

        Raises:
            UserError: If the images are others.
        """
        if plan.image != "png":
            raise UserError("the format kitti has PNG images: leave --image jpeg out, or the format kitti")

    def write(self, folder: SetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write a label file for every image; images are linked, not copied, where the file system can."""
        stems = []
        for record in records():
            stem = _stem(record)
            stems.append(stem)
            folder.link(f"training/image_2/{stem}.png", record["image"]["file"])
            folder.write_if_changed(f"training/label_2/{stem}.txt", self._text(record))
            if "projection" in record["image"]:
                folder.write_if_changed(f"training/calib/{stem}.txt", calibration_text(record["image"]["projection"]))
        folder.write("ImageSets/train.txt", "".join(f"{stem}\n" for stem in stems))

    def _text(self, record: Record) -> str:
        lines = [self._line(found) for found in record["labels"]]
        lines += [self._ignored(found) for found in record["hidden"] if "bbox" in found]
        return "".join(f"{line}\n" for line in lines)

    def _line(self, found: dict[str, Any]) -> str:
        level = sum(found["visibility"] < share for share in OCCLUDED)
        alpha, space = -10.0, UNKNOWN
        if "box3d" in found:
            h, w, length, x, y, z, turn = found["box3d"]
            alpha = (turn - math.atan2(x, z) + math.pi) % (2 * math.pi) - math.pi
            space = f"{h:.2f} {w:.2f} {length:.2f} {x:.2f} {y:.2f} {z:.2f} {turn:.2f}"
        box = _edges(found["amodal_bbox"])
        kind = found["category"].capitalize()
        return f"{kind} {found.get('truncation', 0.0):.2f} {level} {alpha:.2f} {box} {space}"

    def _ignored(self, found: dict[str, Any]) -> str:
        return f"DontCare -1 -1 -10 {_edges(found['bbox'])} {UNKNOWN}"

    def usage(self) -> str:
        """For torchvision, which wants the folder under another name, and for ms2 itself."""
        return (
            "KITTI's object detection layout, `training/` and `ImageSets/`. For torchvision, which looks under "
            "`Kitti/raw`:\n\n"
            "```python\nfrom pathlib import Path\nfrom torchvision.datasets import Kitti\n\n"
            'if not Path("Kitti/raw").exists():\n    Path("Kitti").mkdir(exist_ok=True)\n'
            '    Path("Kitti/raw").symlink_to("..")\ndata = Kitti(".")\n```'
        )
