"""Diffraction data: their kind, what a reader hands over, its checks, and the batches of a run."""
