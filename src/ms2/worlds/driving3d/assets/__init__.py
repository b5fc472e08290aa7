"""What stands on and beside a street, as low-poly meshes: made by code, or read from a folder of one's own."""

from ms2.worlds.driving3d.assets.ground import CURVE, KERB, field, grounds, ribbon
from ms2.worlds.driving3d.assets.kinds import Kind, kinds

__all__ = ["CURVE", "KERB", "Kind", "field", "grounds", "kinds", "ribbon"]
