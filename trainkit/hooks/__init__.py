"""The built-in hooks, one a file: what happens around the loop, at its events."""
