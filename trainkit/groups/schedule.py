"""Computes the learning rate of a schedule with warm-up, on a parameter group's own clock.

    t          0 … W-1                              W … horizon-1
    lr         at(0) · (t + 1) / (W + 1)            at(t - W)
    horizon    horizon - W in both: the schedule runs over the ticks after the warm-up

The functions depend on (settings, clock, memory) alone, so a resumed run gets the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.errors import RecipeError
from trainkit.recipe.group_epochs import warmup_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainkit.contracts import Memory, Monitor, Point, Scheduler


def point(scheduler: Scheduler, t: int, horizon: int, lr: float, memory: Memory) -> Point:
    """Return the learning rate (and momentum) after ``t`` ticks of the group's clock, warm-up included.

    Args:
        scheduler: The group's schedule.
        t: Ticks since the group's start, 0 ≤ t < horizon.
        horizon: Ticks from the group's start to its stop or the run's end.
        lr: The group's learning rate before the schedule.
        memory: What `observe_epoch` last returned; empty at first.

    Raises:
        RecipeError: The warm-up is so long that no tick is left for the schedule.
    """
    warmup = scheduler.warmup
    if problem := warmup_problem(scheduler, horizon):
        raise RecipeError(problem)
    if t >= warmup:
        return scheduler.at(t - warmup, horizon - warmup, lr, memory)
    start = scheduler.at(0, horizon - warmup, lr, memory)
    return start._replace(lr=start.lr * (t + 1) / (warmup + 1))


def observe_epoch(
    scheduler: Scheduler, t: int, memory: Memory, metrics: Mapping[str, float], monitor: Monitor
) -> Memory:
    """Return the memory after an epoch in which the group trained; during warm-up it stays as it is.

    Args:
        scheduler: The group's schedule.
        t: Finished ticks of the group's clock, including those of this epoch.
        memory: What was returned after the previous epoch; empty at first.
        metrics: The epoch's values under their full names.
        monitor: The recipe's monitor.
    """
    return scheduler.observe(memory, metrics, monitor) if t > scheduler.warmup else memory
