"""Turns a recipe into a finished run: builds the parts, trains, saves and resumes."""
