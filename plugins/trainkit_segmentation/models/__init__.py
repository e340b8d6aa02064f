"""Networks for volumes, one in each file, and their initial weights."""
