"""Scans in files of any layout, none of which is trusted."""
