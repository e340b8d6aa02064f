"""Losses of one head, and what applies them to all heads that a network has."""
