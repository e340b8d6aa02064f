"""Tests of checkpoints, and of what stands in them."""
