"""Comparisons of many runs: the grid of cells, scores, tables, figures, and training cost."""
