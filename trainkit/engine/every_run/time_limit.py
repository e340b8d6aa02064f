"""Ends a run, with a checkpoint, before its time limit is reached."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.events import Live

if TYPE_CHECKING:
    from trainkit.state import State

_IMPORTED = time.monotonic()


class TimeLimit(Live):
    """Part of runs with ``[run] time_limit``: interrupts the run, with a checkpoint, early enough.

    The remaining time is enough for what follows the last step of an epoch (validation, pictures, a checkpoint), one
    more step and its checkpoint, each as long as the longest so far, and for a checkpoint that is still being written.

    Args:
        written: The limit as it is written in the recipe.
        seconds: How long the process may run, counted from its start.
    """

    def __init__(self, written: str, seconds: float) -> None:
        self._written = written
        self._end = time.monotonic() - process_seconds() + seconds
        self._last_step: float | None = None
        self._longest_step = self._longest_closing = self._longest_saving = 0.0

    def on_epoch_start(self, state: State) -> None:
        """Record how long the last epoch was being closed, which does not count as a step."""
        if self._last_step is not None:
            self._longest_closing = max(self._longest_closing, time.monotonic() - self._last_step)
        self._last_step = None

    def on_step_end(self, state: State) -> None:
        """Interrupt the run if there is no time for another step."""
        now = time.monotonic()
        if self._last_step is not None:
            self._longest_step = max(self._longest_step, now - self._last_step)
        self._last_step = now
        self._longest_saving = max(self._longest_saving, state.seconds["checkpoint"])
        saving = self._longest_saving + state.seconds_in_background
        if now + self._longest_step + self._longest_closing + saving >= self._end:
            state.interrupt(f"time limit {self._written}")


def process_seconds() -> float:
    """Return for how many seconds this process has run, or, without /proc, how long ago this module was imported."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not (stat.is_file() and uptime.is_file()):
        return time.monotonic() - _IMPORTED
    started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return float(uptime.read_text().split()[0]) - started_ticks / os.sysconf("SC_CLK_TCK")
