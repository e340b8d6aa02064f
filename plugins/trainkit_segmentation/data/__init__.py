"""The data of a run: their kind, and the layouts of folders, one a file."""
