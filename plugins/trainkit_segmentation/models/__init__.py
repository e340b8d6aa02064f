"""Networks for volumes, one a file, and what they begin with."""
