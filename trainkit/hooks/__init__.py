"""The built-in hooks, one per file, which act at events of the training loop."""
