"""Settings of a run: options, recipes, ablations, and how they are parsed."""
