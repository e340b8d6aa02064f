"""From prepared cases to the batches that a step sees."""
