"""Draws the picture of a sequence in docs/sequences.md: frames with tracks on the left, flow to the next frame beside.

Usage: python experiments/sequences.py DATA_SET FILE
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.utils import flow_to_image

from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.native import read_record
from ms2.datasets.sequences.animation import draw_tracks, moving_tracks
from ms2.datasets.sequences.flow import FLOW_SCALE, FLOW_ZERO, decode_deep

STEP = 4
"""Number of frames from one row to the next."""

root = Path(sys.argv[1])
records = [read_record(path) for path in sorted((root / "scenes").glob("*.json"))]
records = [record for record in records if record.frame is not None and record.frame.sequence == 0]
tracks, rows = moving_tracks(records), []
for record in records[:-1:STEP]:
    picture = draw_tracks(DataSetFolder(root), record, tracks)
    steps = decode_deep((root / record.maps["flow_noc"].file).read_bytes()).astype(np.float32)
    flow, valid = (steps[..., :2] - FLOW_ZERO) / FLOW_SCALE, steps[..., 2] == 1
    limit = np.quantile(np.abs(flow[valid]), 0.98)
    colours = flow_to_image(torch.from_numpy((flow / limit).clip(-1, 1) * valid[..., None]).permute(2, 0, 1))
    flow_picture = np.where(valid[..., None], colours.permute(1, 2, 0).numpy(), 0)
    rows.append(np.hstack([np.asarray(picture), np.asarray(Image.fromarray(flow_picture).resize(picture.size))]))
Image.fromarray(np.vstack(rows)).save(sys.argv[2], quality=85)
