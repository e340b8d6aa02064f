"""The built-in ways to compute the outputs for a batch, one per file."""
