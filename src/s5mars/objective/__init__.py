"""What is minimised: losses, and what a run does to the pseudo-labels of any method."""
