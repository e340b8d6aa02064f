"""Live parts that every run has without naming them in the recipe: metrics file, pictures, progress, checkpoints."""
