"""What stands on and beside a street, as low-poly meshes: made by code, or read from a folder of one's own."""

from ms2.worlds.driving3d.assets.ground import CURVES, FIELDS, KERB, RIBBONS, field, grounds, ribbon
from ms2.worlds.driving3d.assets.kinds import Kind, kinds

__all__ = ["CURVES", "FIELDS", "KERB", "RIBBONS", "Kind", "field", "grounds", "kinds", "ribbon"]
