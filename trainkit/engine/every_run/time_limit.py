"""Ends a run in time before the machine is taken away."""

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
    """Part of every run that has ``[run] time_limit``: stops it, with a checkpoint, while there is time for that.

    It leaves room for one more step, one validation and one save, each the longest that was measured.

    Args:
        written: The limit as the recipe says it.
        seconds: How long the process may run, from its start.
    """

    def __init__(self, written: str, seconds: float) -> None:
        self._written = written
        self._end = time.monotonic() - process_seconds() + seconds
        self._last_step: float | None = None
        self._longest = {"step": 0.0, "validation": 0.0, "checkpoint": 0.0}

    def on_epoch_start(self, state: State) -> None:
        """Do not take what lay between two epochs for a step."""
        self._last_step = None

    def on_step_end(self, state: State) -> None:
        """Look whether there is time for another step."""
        now = time.monotonic()
        if self._last_step is not None:
            self._longest["step"] = max(self._longest["step"], now - self._last_step)
        self._last_step = now
        if now + sum(self._longest.values()) >= self._end:
            state.interrupt(f"time limit {self._written}")

    def on_checkpoint(self, state: State) -> None:
        """Remember how long validation and saving took."""
        for what in ("validation", "checkpoint"):
            self._longest[what] = max(self._longest[what], state.seconds[what])


def process_seconds() -> float:
    """Return how long this process has been running; where the system does not tell, since this module's import."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not (stat.is_file() and uptime.is_file()):
        return time.monotonic() - _IMPORTED
    started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return float(uptime.read_text().split()[0]) - started_ticks / os.sysconf("SC_CLK_TCK")
