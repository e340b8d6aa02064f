"""Forms in which trained networks are written for other programs for medical images."""
