"""Aerial 2D: roads with cars seen from above, of which the first is busier than the others (section 4.2)."""

from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import BusyFirstRoad, ScatteredCars, SpacedCars, UniformTraffic
from ms2.worlds.aerial2d.renderer import AerialView

__all__ = ["Aerial2D", "AerialView", "BusyFirstRoad", "ScatteredCars", "SpacedCars", "UniformTraffic"]
