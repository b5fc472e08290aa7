"""Low-poly meshes of street objects and grounds, procedural or from files."""

from ms2.worlds.driving3d.assets.ground import CURVATURES, FIELDS, GROUND_STRIPS, KERB_HEIGHT, ground_meshes
from ms2.worlds.driving3d.assets.mesh_classes import MeshClass, mesh_classes

__all__ = ["CURVATURES", "FIELDS", "GROUND_STRIPS", "KERB_HEIGHT", "MeshClass", "ground_meshes", "mesh_classes"]
