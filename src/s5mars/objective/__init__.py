"""Losses, and what all methods share: alignment, thresholds, the teacher."""
