"""Checkpoints: the bytes of one file, the folder that keeps them, and an optimizer's memory by parameter name."""
