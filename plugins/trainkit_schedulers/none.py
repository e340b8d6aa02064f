"""A constant learning rate."""

from __future__ import annotations

from trainkit import Memory, Point, Scheduler, component


@component
class NoSchedule(Scheduler):
    """Keeps the group's own learning rate. For first trials, and where nothing suggests that it should fall."""

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return the group's learning rate."""
        return Point(lr)
