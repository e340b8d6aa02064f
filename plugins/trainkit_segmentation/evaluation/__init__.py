"""Comparison of predicted masks with the truth: from files to a table of cases and a summary."""
