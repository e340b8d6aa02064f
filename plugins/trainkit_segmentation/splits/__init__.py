"""Division of the cases into those to train on and those to hold out: a kind that other packages can extend."""
