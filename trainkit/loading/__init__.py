"""Which items a step sees, and processes that prepare its batches: for plugins that open data."""
