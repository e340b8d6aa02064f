"""Calibration: makes probabilities say how often they are right, and measures whether they do."""
