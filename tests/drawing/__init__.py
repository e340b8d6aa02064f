"""Tests of the core's ground, and of what holds for every part, recipe and device."""
