"""One training module for every method: Lightning underneath, checkpoints, resuming."""
