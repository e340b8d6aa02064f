"""Turns the text of a recipe into checked settings: positions, layers, structure, rules, findings."""
