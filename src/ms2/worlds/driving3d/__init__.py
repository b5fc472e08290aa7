"""Driving: street scenes in 3D as a car's camera sees them, to be learned from KITTI's images (section 4.3)."""

from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import RandomStreets, Rural, SimpleStreets, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView

__all__ = ["Driving", "RandomStreets", "Rural", "SimpleStreets", "StreetLayout", "StreetView", "Suburban", "Urban"]
