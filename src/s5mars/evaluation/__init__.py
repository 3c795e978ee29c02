"""The confusion matrix, the scores derived from it, and calibration."""
