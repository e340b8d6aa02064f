"""Looks for garbage seldom: by Python's own thresholds that is 5 % of the CPU time of small runs, and here half."""

from __future__ import annotations

import gc


def look_seldom_for_garbage() -> None:
    """Look for garbage after 20,000 new objects instead of 700, and never among what is there now.

    What is there are a million objects, which stay: all modules and, in a process of pytest, all tests. A full look
    would take half a second, and a search of values looks after each of its trials.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 10)
