"""From preprocessed cases to the batches of a training step."""
