"""Losses of one head, and their mean over all heads that a network has."""
