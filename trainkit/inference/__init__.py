"""The built-in ways from a batch to outputs, one a file."""
