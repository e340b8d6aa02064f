"""How a wave gets from one slice of a specimen to the next: a kind that other packages can extend."""
