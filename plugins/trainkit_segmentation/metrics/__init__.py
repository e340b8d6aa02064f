"""Metrics of whole volumes."""
