"""What a hash encoding is made of: levels, grids, a small network, and the backends for them."""
