"""How image files of one format are read: a kind that other packages can extend."""
