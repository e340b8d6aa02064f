"""The built-in optimizers, one per file; their settings have the names of torch's arguments."""
