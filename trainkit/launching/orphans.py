"""Ends a process whose launcher has died, for example because the system killed it: nobody else would.

A training saves and stops, as after a signal. A process that waits for others would wait until their patience is over,
because some of them may have ended before they came. It ends after a short time, in which the others can tell it more.
"""

from __future__ import annotations

import os
import signal
import time
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainkit.processes.meeting import Meeting

_LOOK_EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 15.0
_EXIT_CODE = 75  # as after a signal; nobody is there who reads it


def end_with(launcher: int, meeting: Meeting) -> None:
    """From now on, end this process soon after its launcher has died.

    Args:
        launcher: Number of the launcher's process, whose child this one is unless it has died already.
        meeting: Where this process meets the others.
    """
    Thread(target=_watch, args=(launcher, meeting), name="trainkit-watches-launcher", daemon=True).start()


def _watch(launcher: int, meeting: Meeting) -> None:
    while os.getppid() == launcher:  # the system gives a process whose parent has died another parent
        time.sleep(_LOOK_EVERY_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    waiting_since = None
    while True:
        waiting_since = (waiting_since or time.monotonic()) if meeting.is_waiting else None
        if waiting_since is not None and time.monotonic() > waiting_since + _PATIENCE_SECONDS:
            os._exit(_EXIT_CODE)  # the main thread may be in a library, where no exception reaches it
        time.sleep(_LOOK_EVERY_SECONDS)
