"""The comparison with the truth, where a simulation knows it."""
