"""Reads run folders, without torch: lists runs, compares them, and reports on one. No run folder is changed."""
