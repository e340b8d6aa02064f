"""The data of a run: the kind, and one reader in each file."""
