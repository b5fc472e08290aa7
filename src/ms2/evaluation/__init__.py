"""What a run is measured by, and what it leaves behind."""
