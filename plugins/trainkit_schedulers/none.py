"""A learning rate that stays as it is."""

from __future__ import annotations

from trainkit import Memory, Point, Scheduler, component


@component
class NoSchedule(Scheduler):
    """The group's own learning rate throughout. For first trials, and where nothing says that it should fall."""

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return the group's learning rate."""
        return Point(lr)
