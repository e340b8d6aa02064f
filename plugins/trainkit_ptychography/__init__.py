"""Ptychography: diffraction data, the forward model, and what it reconstructs."""
