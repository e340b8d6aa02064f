"""A learning rate that rises to a peak and then falls far below its start, while momentum moves the other way."""

from __future__ import annotations

import math
from typing import Literal

import attrs
from attrs.validators import ge, gt, in_, le, lt

from trainkit import Memory, Point, Scheduler, component


@component
class OneCycle(Scheduler):
    """Rises to ``lr · peak_factor``, then falls far below the start; momentum moves the other way. For short runs.

    The same as torch's ``OneCycleLR`` with ``total_steps`` = the horizon and ``max_lr`` = ``lr · peak_factor``. The
    run begins at ``lr · peak_factor / div_factor`` and its last tick is at that divided by ``final_div_factor``. It is
    mostly used with ``by = "step"``.

    Attributes:
        peak_factor: The peak as a multiple of the group's learning rate; > 0.
        pct_start: Fraction of the horizon in which the rate rises; 0 … 1.
        anneal_strategy: Shape of both ways: half a cosine ("cos") or a straight line ("linear").
        div_factor: The peak over the first value; > 0.
        final_div_factor: The first value over the last; > 0.
        cycle_momentum: Whether momentum (beta1, for optimizers of Adam's family) falls while the rate rises.
        base_momentum: Momentum at the peak; 0 … 1.
        max_momentum: Momentum at both ends; 0 … 1.

    Source:
        Smith, Topin: "Super-convergence: very fast training of neural networks using large learning rates" (2018).
    """

    peak_factor: float = attrs.field(default=10.0, validator=[gt(0), lt(math.inf)])
    pct_start: float = attrs.field(default=0.3, validator=[ge(0), le(1)])
    anneal_strategy: Literal["cos", "linear"] = attrs.field(default="cos", validator=in_(("cos", "linear")))
    div_factor: float = attrs.field(default=25.0, validator=[gt(0), lt(math.inf)])
    final_div_factor: float = attrs.field(default=1e4, validator=[gt(0), lt(math.inf)])
    cycle_momentum: bool = True
    base_momentum: float = attrs.field(default=0.85, validator=[ge(0), lt(1)])
    max_momentum: float = attrs.field(default=0.95, validator=[ge(0), lt(1)])

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return learning rate and momentum after ``t`` ticks."""
        t = min(t, horizon - 1)
        peak = lr * self.peak_factor
        first = peak / self.div_factor
        top = float(self.pct_start * horizon) - 1  # the tick of the peak, as torch counts; seldom whole
        if t <= top:
            # A top at tick 0 has no way up: torch divides by zero there.
            fraction = t / top if top > 0 else 1.0
            rate = self._between(first, peak, fraction)
            momentum = self._between(self.max_momentum, self.base_momentum, fraction)
        else:
            # The way up starts at tick 0 even where the top lies before it; the way down starts at the top.
            fraction = (t - top) / (horizon - 1 - top)
            rate = self._between(peak, first / self.final_div_factor, fraction)
            momentum = self._between(self.base_momentum, self.max_momentum, fraction)
        return Point(rate, momentum if self.cycle_momentum else None)

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * fraction + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * fraction) + 1)
