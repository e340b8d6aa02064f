"""Optics, the forward model, geometry and quality: pure functions of arrays."""
