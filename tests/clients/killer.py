"""A hook that kills its own process, as the power failing would: nothing is said, saved or cleaned up."""

from __future__ import annotations

import os
import signal

from trainkit import Context, Hook, State, component

ARMED = "TRAINKIT_TESTS_KILL"
"""The environment variable without which nothing happens."""


@component
class KillItself(Hook):
    """Kills the run where it stands, if the environment says so.

    Attributes:
        epoch: Number of the epoch in which it happens, from 0.
        step: After this many steps of the epoch; 0: at its beginning.
    """

    epoch: int = 3
    step: int = 0

    def build(self, context: Context) -> LiveKiller:
        return LiveKiller(self)


class LiveKiller:
    def __init__(self, settings: KillItself) -> None:
        self._settings = settings

    def on_epoch_start(self, state: State) -> None:
        self._kill_at(state, 0)

    def on_step_end(self, state: State) -> None:
        self._kill_at(state, state.step - state.epoch * state.data.steps_per_epoch)

    def _kill_at(self, state: State, step: int) -> None:
        if (state.epoch, step) == (self._settings.epoch, self._settings.step) and ARMED in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
