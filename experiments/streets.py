"""Draws the picture of streets in the README: three of each prior, from the simple one to inner cities.

Usage: python experiments/streets.py FILE
"""

import sys

import torch
from PIL import Image

from ms2.pictures import image_grid
from ms2.scene import scenes_of
from ms2.seeding import generator
from ms2.worlds.driving3d import Driving, Rural, SimpleStreets, StreetLayout, StreetView, Suburban, Urban

grammar, layout, view, draw = Driving(), StreetLayout(), StreetView(size=(192, 624)), generator(4, "streets")
rows = [
    view.render(layout.sample(scenes_of(grammar, prior.sample(grammar, 3, draw)), draw))
    for prior in (SimpleStreets(), Rural(), Suburban(), Urban())
]
Image.fromarray(image_grid(torch.cat(rows), 3)).save(sys.argv[1], quality=88)
