"""One training module and one loop for every method; checkpoints, resuming."""
