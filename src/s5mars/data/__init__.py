"""Data in: layouts, samples, reading, partitions, statistics, audit, synthetic scenes."""
