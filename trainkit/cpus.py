"""Finds out how many CPUs this process may use."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Return how many CPUs this process may use, at least 1: those that a queue or `taskset` left to it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
