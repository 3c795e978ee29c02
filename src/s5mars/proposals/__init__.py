"""Object proposals: masks of probable objects, found once, stored, and drawn from in training."""
