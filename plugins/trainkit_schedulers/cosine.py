"""Half a cosine, from the group's learning rate down to a fraction of it."""

from __future__ import annotations

import math

import attrs
from attrs.validators import ge, le

from trainkit import Memory, Point, Scheduler, component


@component
class Cosine(Scheduler):
    """Half a cosine down to ``lr · final_factor``. For runs whose length is known beforehand; seldom a bad choice.

    The closed form of torch's ``CosineAnnealingLR`` with ``T_max`` = the horizon: the last tick is one short of the
    final value.

    Attributes:
        final_factor: The value reached at the horizon, as a fraction of the group's learning rate; 0 … 1.

    Source:
        Loshchilov, Hutter: "SGDR: stochastic gradient descent with warm restarts" (2017), eq. 5, without restarts.
    """

    final_factor: float = attrs.field(default=0.01, validator=[ge(0), le(1)])

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return the learning rate on the half wave."""
        final = lr * self.final_factor
        return Point(final + (lr - final) * (1 + math.cos(math.pi * min(t, horizon) / horizon)) / 2)
