"""Driving: 3D street scenes from a car's camera, with KITTI as target (section 4.3)."""

from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import RandomStreets, Rural, SimpleStreets, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView

__all__ = ["Driving", "RandomStreets", "Rural", "SimpleStreets", "StreetLayout", "StreetView", "Suburban", "Urban"]
