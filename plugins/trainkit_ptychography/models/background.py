"""A background that patterns have in common: its settings."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt, lt

from trainkit import component


@component
class Background:
    """Light on the detector that no wave through the specimen explains: scattered light, dark counts, a leaking beam.

    It is the same in all patterns, added to their intensities, and nowhere below 0. The light of the probe is lowered
    by as much, so that totals stay. A background that was measured is better subtracted (``data.prepare.background``).

    Attributes:
        spacing_pixels: Distance of the nodes between which it is interpolated smoothly: the larger, the smoother. With
            1, each pixel has its own, which many patterns of much light can tell, as in the near field. In the far
            field such a background also takes light that object and probe should explain.
        start_share: The share of all light that it has before it is trained, evenly spread.
    """

    spacing_pixels: float = attrs.field(default=16.0, validator=ge(1.0))
    start_share: float = attrs.field(default=1e-4, validator=[gt(0.0), lt(0.5)])
