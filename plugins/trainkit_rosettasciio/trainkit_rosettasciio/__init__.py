"""Microscopes' own files as ptychographic scans, read by RosettaSciIO. Under the GPL, version 3 or later, like it."""
