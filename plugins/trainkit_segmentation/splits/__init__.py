"""Which cases are trained on, and which are held out: a kind that other packages can extend."""
