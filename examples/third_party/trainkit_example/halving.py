"""A schedule: how a learning rate changes."""

from __future__ import annotations

import attrs
from trainkit import Memory, Point, Scheduler, component


@component
class Halving(Scheduler):
    """Halves the learning rate at regular intervals.

    Attributes:
        every: Ticks (epochs, or steps with `by = "step"`) between two halvings.
    """

    every: int = attrs.field(default=10, validator=attrs.validators.ge(1))

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        return Point(lr * 0.5 ** (t // self.every))  # of `t` alone: nothing has to be restored on a resume
