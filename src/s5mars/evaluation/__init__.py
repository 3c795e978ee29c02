"""One confusion matrix, and every score that follows from it."""
