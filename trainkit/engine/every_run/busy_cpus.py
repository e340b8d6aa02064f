"""Says once that a run waits for CPUs which something else uses, and what can be done about it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch

from trainkit.cpu_waits import is_disturbed
from trainkit.cpus import usable_cpus
from trainkit.events import Live
from trainkit.words import number_of

if TYPE_CHECKING:
    from trainkit.state import State

_LOGGER = logging.getLogger("trainkit")

_LOOKED_AT = 60.0  # seconds: what was long ago neither hides nor makes up what is so now


class BusyCpus(Live):
    """Part of every run: compares how long it waited for CPUs with the time of its epochs.

    Args:
        note: Records how many of how many seconds the run waited.
    """

    takes_late_values: ClassVar[bool] = True

    def __init__(self, note: Callable[[float, float], None]) -> None:
        self._note = note
        self._waited = self._seconds = 0.0
        self._has_told = False

    def on_epoch_end(self, state: State) -> None:
        """Add an epoch, and tell if much of the time was lost."""
        if state.cpu_wait_seconds is None or self._has_told:
            return
        self._waited += state.cpu_wait_seconds
        self._seconds += sum(state.seconds.values())
        if is_disturbed(self._waited, self._seconds):
            share = self._waited / self._seconds
            why = in_words(torch.get_num_threads(), usable_cpus(), share, state.context.world)
            _LOGGER.warning(
                "this run waits for CPUs: for %.0f %% of the last %.0f s, it could compute and had none. %s",
                *(100 * share, self._seconds, why),
            )
            self._has_told = True
            self._note(self._waited, self._seconds)  # the run may be killed before its end
        elif self._seconds >= _LOOKED_AT:
            self._waited = self._seconds = 0.0


def in_words(threads: int, cpus: int, share: float, processes: int = 1) -> str:
    """Return why threads wait for CPUs, and what helps.

    Args:
        threads: How many threads compute in this process.
        cpus: How many CPUs the process may use.
        share: Share of the time in which a thread waits.
        processes: Number of processes of the run.

    Example:
        >>> in_words(1, 2, 0.5)
        'Other work uses them; the run has one thread already, so only less other work makes it faster'
    """
    if threads > cpus:
        why, fewer = f"Its {threads} threads share {number_of(cpus, 'CPU')}, and wait", cpus
        return f"{why} for each other: {_advice(fewer)}"
    if processes > 1:
        others, whose, less = "Other work or its other processes use them", "each process has", "of both"
    else:
        others, whose, less = "Other work uses them", "the run has", "other work"
    if threads == 1:
        return f"{others}; {whose} one thread already, so only less {less} makes it faster"
    fewer = max(1, min(threads - 1, int(threads * (1 - share))))
    return f"{others}, and its threads wait for each other: {_advice(fewer)}"


def _advice(threads: int) -> str:
    return f"run.threads = {threads} may be several times faster (results differ by rounding)"
