"""Reads data sets: layouts, samples, partitions, batches, statistics, synthetic scenes."""
