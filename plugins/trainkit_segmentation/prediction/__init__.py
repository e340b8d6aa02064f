"""Masks for new images: finds the channels, predicts in windows without filling the memory, writes NIfTI."""
