"""Tests of recipes: from text to checked settings."""
