"""Draws a picture of streets of the scenarios' priors at KITTI's size beside photographs: no label of KITTI is read.

From left to right: the plain set of meshes in streets of the scenarios; the detailed one with places and light of
kitti_quick; and frames of KITTI. MS2_DATA names the folder that holds kitti/.

Usage: python experiments/kitti_streets.py FILE
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ms2.core.images import image_grid
from ms2.core.seeding import generator
from ms2.priors.structure import MixturePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import Rural, Suburban, Urban
from ms2.worlds.driving3d.renderer import KITTI_SIZE, StreetView

NUM_ROWS, SEED = 3, 8
LIGHT = {"exposure": (0.85, 1.15), "contrast": (1.3, 2.3), "saturation": (0.7, 1.2), "haze": (0.0, 0.4)}

grammar = Driving()
rules = MixturePrior([Rural(), Suburban(), Urban()]).sample(grammar, NUM_ROWS, generator(SEED, "structures"))
columns = []
for layout, view in (
    (StreetLayout(), StreetView(KITTI_SIZE)),
    (
        StreetLayout(place_ranges={}, light_ranges=LIGHT, mesh_set="detailed"),
        StreetView(KITTI_SIZE, mesh_set="detailed", metering=0.36),
    ),
):
    columns.append(view.render(layout.sample(scenes_from_derivations(grammar, rules), generator(SEED, "streets"))))
frames = sorted((Path(os.environ["MS2_DATA"]) / "kitti/training/image_2").glob("*.png"))
chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, NUM_ROWS).astype(int)]
resized = [np.asarray(Image.open(frame).convert("RGB").resize(KITTI_SIZE[::-1])) for frame in chosen]
columns.append(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255)
picture = Image.fromarray(image_grid(torch.stack(columns, 1).flatten(0, 1), 3))
picture.save(sys.argv[1], quality=44, optimize=True)
