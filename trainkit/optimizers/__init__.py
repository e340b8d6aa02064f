"""The built-in optimizers, one a file: settings named as torch's arguments are."""
