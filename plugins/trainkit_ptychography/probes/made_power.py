"""The power of modes that are made: what both the settings of probes and what they build need."""

POWER_OF_A_MADE_MODE = 0.02
"""Share of the total power, unless a recipe says another."""
