"""Live parts that every run has without being told: files, pictures, progress, checkpoints. No recipe names them."""
