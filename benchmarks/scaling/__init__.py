"""What a run costs as the photos grow."""
