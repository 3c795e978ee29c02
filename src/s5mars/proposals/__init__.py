"""Object proposals: masks of probable objects, computed once, stored, and drawn in training."""
