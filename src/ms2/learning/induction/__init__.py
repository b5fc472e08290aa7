"""Learn a grammar from scenes, and write what a structure model has learned as one."""
