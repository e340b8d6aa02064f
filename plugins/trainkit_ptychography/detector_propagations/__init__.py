"""How the wave behind the specimen reaches the detector: a kind that other packages can extend."""
