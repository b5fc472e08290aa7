"""What knows nothing of scenes: errors, plug-ins, settings, seeding, files, images, parsing."""
