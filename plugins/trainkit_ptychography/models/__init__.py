"""The models: what is trained, and what is kept in order meanwhile."""
