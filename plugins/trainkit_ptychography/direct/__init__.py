"""An object from the patterns in one go, without iterations: a kind that other packages can extend."""
