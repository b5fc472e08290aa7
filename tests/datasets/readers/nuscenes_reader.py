"""Read a data set in nuScenes' format with its devkit: boxes in 3D project around the records' boxes in 2D.

Run in an environment that has nuscenes-devkit: python nuscenes_reader.py DATA_SET
"""

import json
import sys
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility, view_points

root = Path(sys.argv[1])
data = NuScenes("v1.0-ms2", dataroot=str(root / "nuscenes"), verbose=False)
records = [json.loads(path.read_text()) for path in sorted((root / "scenes").glob("*.json"))]
by_image = {(root / record["image"]["file"]).read_bytes(): record for record in records}
overlaps, speeds = [], []
for sample in data.sample:
    path, boxes, intrinsics = data.get_sample_data(sample["data"]["CAM_FRONT"], box_vis_level=BoxVisibility.NONE)
    record = by_image[Path(path).read_bytes()]
    size = np.array([record["image"]["width"], record["image"]["height"]])
    known = np.array([label["amodal_bbox"] for label in record["labels"]])
    for box in boxes:
        speeds.append(np.linalg.norm(data.box_velocity(box.token)))
        corners = box.corners()
        if corners[2].min() < 0.5:
            continue  # beside the camera
        points = view_points(corners, intrinsics, normalize=True)[:2] + 0.5
        low, high = points.min(1).clip(0, size), points.max(1).clip(0, size)
        inner_low, inner_high = np.maximum(low, known[:, :2]), np.minimum(high, known[:, :2] + known[:, 2:])
        inside = (inner_high - inner_low).clip(min=0).prod(1)
        overlap = inside / ((high - low).prod() + known[:, 2:].prod(1) - inside)
        best = overlap.argmax()
        # the cuboid is larger than what it holds
        assert (low < known[best, :2] + 1).all() and (high > known[best, :2] + known[best, 2:] - 1).all()
        overlaps.append(overlap[best])
print(
    f"{len(overlaps)} boxes, IoU {np.mean(overlaps):.3f}, {np.min(overlaps):.3f} at least; {np.nanmax(speeds):.1f} m/s"
)
assert overlaps and np.mean(overlaps) > 0.7 and np.nanmax(speeds) < 15
