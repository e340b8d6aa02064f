"""Computes the learning rate of a schedule with warm-up, on a parameter group's own clock.

    t          0 … W-1                              W … horizon-1
    lr         at(0) · (t + 1) / (W + 1)            at(t - W)
    horizon    horizon - W in both: the schedule runs over the ticks after the warm-up

The functions depend on (settings, clock, memory) alone, so a resumed run gets the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainkit.contracts import Point
from trainkit.errors import PartError, RecipeError, blame
from trainkit.recipe.group_epochs import warmup_problem

if TYPE_CHECKING:
    from trainkit.contracts import Memory, Monitor, Scheduler

_ROUNDING = 1e-12
"""How far below 0 a learning rate may be, for schedules that end at 0 but for rounding."""


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
        PartError: The schedule failed, or returned no learning rate.
    """
    warmup = scheduler.warmup
    if problem := warmup_problem(scheduler, horizon):
        raise RecipeError(problem)
    if t >= warmup:
        return _at(scheduler, t - warmup, horizon - warmup, lr, memory)
    start = _at(scheduler, 0, horizon - warmup, lr, memory)
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

    Raises:
        PartError: The schedule failed, or returned no memory.
    """
    if t <= scheduler.warmup:
        return memory
    try:
        found = scheduler.observe(memory, metrics, monitor)
    except Exception as error:
        blame(error, f"scheduler {type(scheduler).__name__}, in observe")
    if not isinstance(found, Mapping):
        raise PartError(f"scheduler {type(scheduler).__name__}, in observe, must give a mapping; it gave {found!r}")
    return found


def _at(scheduler: Scheduler, t: int, horizon: int, lr: float, memory: Memory) -> Point:
    """Return what the schedule says, made sure that it is a learning rate.

    Raises:
        PartError: It is not; the message names the schedule.
    """
    try:
        rate, momentum = scheduler.at(t, horizon, lr, memory)
        rate = float(rate)
        momentum = None if momentum is None else float(momentum)
    except Exception as error:
        blame(error, f"scheduler {type(scheduler).__name__}, in at")
    if not (math.isfinite(rate) and rate >= -_ROUNDING and (momentum is None or 0 <= momentum < 1)):
        raise PartError(
            f"scheduler {type(scheduler).__name__}, in at, must give a learning rate of at least 0, and a momentum "
            f"from 0 to below 1; after {t} of {horizon} ticks it gave {rate} and {momentum}"
        )
    return Point(rate, momentum)
