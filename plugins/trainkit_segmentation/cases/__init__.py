"""A case and its files, the meaning of label values, and made-up cases."""
