"""A hook that waits in some steps until the run is asked to stop, as a queue does when its time is nearly over."""

from __future__ import annotations

import time

from trainkit import Context, Hook, State, component


@component
class UntilInterrupted(Hook):
    """Waits at the start of some steps until the run is interrupted, so that each of them ends a start of the run.

    Attributes:
        steps: Which steps, counted from 0.
    """

    steps: tuple[int, ...] = ()

    def build(self, context: Context) -> object:
        return LiveUntilInterrupted(frozenset(self.steps))


class LiveUntilInterrupted:
    def __init__(self, steps: frozenset[int]) -> None:
        self._steps = steps

    def on_step_start(self, state: State) -> None:
        if state.step in self._steps:
            (state.folder / "waits").touch()
            while not state.interrupted and "interrupt" not in state.requests:
                time.sleep(0.1)
