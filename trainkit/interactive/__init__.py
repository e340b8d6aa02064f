"""Runs from Python: what ``trainkit.Run`` and ``trainkit.open_run`` give to scripts and notebooks."""
