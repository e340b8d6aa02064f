"""Losses of diffraction patterns, and regularisers of object and positions."""
