"""From a scan to a recipe."""
