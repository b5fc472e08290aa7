"""Low-poly meshes of street objects and grounds, procedural or from files."""
