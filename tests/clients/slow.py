"""A hook that takes its time, and shows a test outside that the training has begun."""

from __future__ import annotations

import time
from pathlib import Path

from trainkit import Context, Hook, State, component


@component
class Slow(Hook):
    """Sleeps in each step.

    Attributes:
        seconds: How long.
    """

    seconds: float = 0.05

    def build(self, context: Context) -> object:
        return LiveSlow(self.seconds)


class LiveSlow:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_step_start(self, state: State) -> None:
        Path("began").touch()
        time.sleep(self._seconds)
