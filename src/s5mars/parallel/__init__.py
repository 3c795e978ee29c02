"""Work in several processes: ahead of its use, in workers that may crash, on Ray, in training."""
