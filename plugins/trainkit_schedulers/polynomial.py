"""A learning rate that falls as a power of the fraction of the run that is left."""

from __future__ import annotations

import math

import attrs
from attrs.validators import ge, lt

from trainkit import Memory, Point, Scheduler, component


@component
class Polynomial(Scheduler):
    """``lr · (1 - t / horizon) ** power``, which is 0 at the horizon. The schedule of nnU-Net and DeepLab.

    The closed form of torch's ``PolynomialLR`` with ``total_iters`` = the horizon.

    Attributes:
        power: 1 gives a straight line; below 1 the rate falls late, above 1 early; ≥ 0.

    Source:
        Chen et al.: "DeepLab" (2018), section 4.1.2; Isensee et al.: "nnU-Net" (2021).
    """

    power: float = attrs.field(default=0.9, validator=[ge(0), lt(math.inf)])

    def at(self, t: int, horizon: int, lr: float, memory: Memory) -> Point:
        """Return the learning rate, a power of the fraction that is left."""
        return Point(lr * (1.0 - min(t, horizon) / horizon) ** self.power)
