"""Utilities that are independent of scenes: errors, plug-ins, settings, seeding, files, images, configurations."""
