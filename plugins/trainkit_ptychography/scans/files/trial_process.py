"""Tries in a process of its own what may crash a library or never end: a damaged HDF5 file can do both.

The process is a copy of this one (fork), so that it costs milliseconds. It only reads, and leaves without running
anything that this process would run at its end. Where there is no safe fork (macOS, Windows), nothing is tried.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable


def survives(action: Callable[[], object], cpu_seconds: float) -> bool:
    """Return whether a process that does this lives to its end; an exception in it is an end too.

    Args:
        action: What to do.
        cpu_seconds: How long it may compute; waiting for a file does not count.
    """
    if sys.platform != "linux":
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of this process are of no use to the other one
        process = os.fork()
    if process == 0:
        try:
            for number in (signal.SIGPROF, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGABRT):
                signal.signal(number, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            os.closerange(0, 3)  # a library that complains does so to nobody
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return not os.WIFSIGNALED(status)
