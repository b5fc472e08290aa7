"""Draws a picture of the same four streets rasterised and path-traced, above frames of KITTI: no label of it is read.

Streets are those of the scenarios' priors, with the detailed meshes, places and light of kitti_quick. MS2_DATA names
the folder that holds kitti/, and MS2_BLENDER the program blender or a Python interpreter with bpy.

Usage: python experiments/path_traced_streets.py FILE
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ms2.core.images import image_grid
from ms2.core.seeding import generator
from ms2.priors.structure import MixturePrior
from ms2.render.engines import Blender, WarpEngine
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import Rural, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView

NUM_SCENES, SEED, SIZE = 4, 11, (192, 624)
LIGHT = {"exposure": (0.85, 1.15), "contrast": (1.3, 2.3), "saturation": (0.7, 1.2), "haze": (0.0, 0.4)}

grammar = Driving()
rules = MixturePrior([Rural(), Suburban(), Urban()]).sample(grammar, NUM_SCENES, generator(SEED, "structures"))
layout = StreetLayout(place_ranges={}, light_ranges=LIGHT, mesh_set="detailed")
scenes = layout.sample(scenes_from_derivations(grammar, rules), generator(SEED, "streets"))
blender = Blender(os.environ["MS2_BLENDER"], samples=64)
columns = []
for engine in (WarpEngine(supersampling=4), blender):
    start = time.perf_counter()
    columns.append(StreetView(SIZE, mesh_set="detailed", metering=0.36, engine=engine).render(scenes))
    print(f"{type(engine).__name__}: {time.perf_counter() - start:.1f} s for {NUM_SCENES} images")
print(f"Cycles by its own clock: {blender.cycles_seconds:.1f} s")
blender.close()
frames = sorted((Path(os.environ["MS2_DATA"]) / "kitti/training/image_2").glob("*.png"))
photographs = [ImageOps.fit(Image.open(frames[i]).convert("RGB"), SIZE[::-1]) for i in (60, 250)]
last = torch.from_numpy(np.stack([np.asarray(photograph) for photograph in photographs])).permute(0, 3, 1, 2) / 255
picture = Image.fromarray(image_grid(torch.cat([torch.stack(columns, 1).flatten(0, 1), last]), 2))
picture.save(sys.argv[1], quality=70, optimize=True)
