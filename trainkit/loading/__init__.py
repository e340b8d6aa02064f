"""For plugins that open data: chooses the items of each step, and prepares batches in worker processes."""
