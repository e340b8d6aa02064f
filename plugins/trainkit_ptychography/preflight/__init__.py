"""What is tried out before a run: whether the geometry that the recipe tells is the one that the patterns show."""
