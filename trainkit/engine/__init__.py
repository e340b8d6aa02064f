"""From a recipe to a finished run: building, the loop, saving, resuming."""
