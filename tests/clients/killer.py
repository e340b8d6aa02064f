"""A hook that kills its own process, as the power failing would: nothing is said, saved or cleaned up."""

from __future__ import annotations

import os
import signal
from typing import Literal

from trainkit import Context, Hook, State, component

ARMED = "TRAINKIT_TESTS_KILL"
"""The environment variable without which nothing happens."""


@component
class KillItself(Hook):
    """Kills the run in one of its epochs, if the environment says so.

    Attributes:
        epoch: The epoch in which it happens, counted from 0.
        when: At its beginning, after its second step, after its second step when the first one was saved, or when it is
            all written down but not yet saved.
    """

    epoch: int = 3
    when: Literal["epoch_start", "step_end", "saved_step", "checkpoint"] = "epoch_start"

    def build(self, context: Context) -> object:
        return LiveKiller(self)


class LiveKiller:
    def __init__(self, settings: KillItself) -> None:
        self._epoch, self._when = settings.epoch, settings.when

    def on_epoch_start(self, state: State) -> None:
        self._kill("epoch_start", state.epoch)

    def on_step_end(self, state: State) -> None:
        step = state.step - state.epoch * state.data.batches_per_epoch
        if step == 1 and (self._when, self._epoch) == ("saved_step", state.epoch):
            state.save("a test asks for it")
        if step == 2:
            self._kill("step_end", state.epoch)
            self._kill("saved_step", state.epoch)

    def on_checkpoint(self, state: State) -> None:
        self._kill("checkpoint", state.epoch - 1)

    def _kill(self, when: str, epoch: int) -> None:
        if (when, epoch) == (self._when, self._epoch) and ARMED in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
