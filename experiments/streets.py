"""Draws the picture of streets in docs/results/driving.md: three of each prior, from the simple one to inner cities.

Usage: python experiments/streets.py FILE
"""

import sys

import torch
from PIL import Image

from ms2.core.images import image_grid
from ms2.core.seeding import generator
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import Rural, SimpleStreets, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView

grammar, layout, view, draw = Driving(), StreetLayout(), StreetView(size=(192, 624)), generator(4, "streets")
rows = [
    view.render(layout.sample(scenes_from_derivations(grammar, prior.sample(grammar, 3, draw)), draw))
    for prior in (SimpleStreets(), Rural(), Suburban(), Urban())
]
Image.fromarray(image_grid(torch.cat(rows), 3)).save(sys.argv[1], quality=88)
