"""What a process does that a launcher started beside the first one: it takes part in what that one does."""

from __future__ import annotations

import contextlib
import os
import sys

from trainkit.engine.signals import KeptSignals, handled
from trainkit.errors import ProcessError, RecipeError
from trainkit.processes.meeting import meeting


def only_first_process_continues() -> None:
    """In the first process, or if there is one only, return; any other takes part in its trainings, and then ends."""
    if meeting().place.is_first:
        return
    # If the first process is killed, torch would print a trace of its own for each value that is asked for.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    kept = KeptSignals()
    with handled(kept.on_signal):
        from trainkit.console import Console
        from trainkit.engine.several import take_part

        take_part(Console(quiet=True), kept)
    sys.exit(0)


def is_reported(error: Exception) -> bool:
    """Return whether the first process reports an error of this one; it is told the error."""
    try:
        place = meeting().place
    except RecipeError:
        return False
    return not place.is_first and (isinstance(error, ProcessError) or meeting().fail(str(error)))


def is_first_process() -> bool:
    """Return whether this process is the first one, or the only one."""
    try:
        return meeting().place.is_first
    except RecipeError:
        return True


def is_one_of_several() -> bool:
    """Return whether a launcher started others beside this process."""
    try:
        return meeting().place.world > 1
    except RecipeError:
        return False


def let_others_go() -> None:
    """At the end of the program, let the processes that wait for the first one end too."""
    with contextlib.suppress(RecipeError):
        meet = meeting()
        (meet.end if meet.place.is_first else meet.go)()
