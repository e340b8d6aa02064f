"""Figures of merit of whole volumes."""
