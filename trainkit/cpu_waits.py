"""How long the threads of this process were ready to compute, and had no CPU, because others used all of them.

Linux counts this for each thread (``/proc/self/task/*/schedstat``). Where it is not counted, nothing is known.

Source:
    Documentation/scheduler/sched-stats.rst of Linux, "/proc/<pid>/schedstat".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_SHARE = 0.2  # of the time; threads that compute together lose more than that
_SECONDS = 3.0  # who waited for less has lost little
_THREADS = Path("/proc/self/task")


def is_disturbed(waited: float, seconds: float) -> bool:
    """Return whether a time says more about other programs than about what was timed.

    Args:
        waited: Seconds of it without a CPU.
        seconds: The time.
    """
    return seconds > 0 and waited >= _SECONDS and waited >= _SHARE * seconds


class CpuWaits:
    """Measures how long the thread of this process that waited longest has waited for a CPU.

    Threads that compute together wait for each other, so the longest wait is what they lose at least.
    """

    def __init__(self) -> None:
        self._before = _nanoseconds()

    def seconds(self) -> float | None:
        """Return the longest wait of this lap; None: this system does not count it."""
        return self._since_before(_nanoseconds()) if self._before else None

    def lap(self) -> float | None:
        """Return the same, and begin a new lap."""
        if not self._before:
            return None
        now = _nanoseconds()
        seconds, self._before = self._since_before(now), now
        return seconds

    def _since_before(self, now: Mapping[str, int]) -> float:
        return max((waited - self._before.get(thread, 0) for thread, waited in now.items()), default=0) / 1e9


def _nanoseconds() -> Mapping[str, int]:
    """Return how long each thread has waited since it began; nothing: it is not counted."""
    waited: dict[str, int] = {}
    ran = 0
    try:
        threads = os.listdir(_THREADS)
    except OSError:
        return waited
    for thread in threads:
        try:
            on_cpu, waiting = (_THREADS / thread / "schedstat").read_text().split()[:2]
            waited[thread], ran = int(waiting), ran + int(on_cpu)
        except (OSError, ValueError):
            continue  # the thread has ended, or this system does not count
    return waited if ran else {}  # a kernel that does not count says 0
