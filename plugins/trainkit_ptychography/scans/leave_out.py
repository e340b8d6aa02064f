"""Which patterns of a file are not used: the settings."""

from __future__ import annotations

from typing import Literal

import attrs

from trainkit import component
from trainkit_ptychography.scans.ranges import numbers_or_ranges

_share = attrs.validators.optional(attrs.validators.gt(0.0))


@component
class LeaveOut:
    """Which patterns of a file are not used. Their positions are left out as well.

    Positions (and masks of single patterns) are either as many as the file has patterns, or as many as those that
    ``points`` and ``marks`` leave. If there are more positions than patterns, ``points`` and ``marks`` count positions.

    Attributes:
        points: Numbers of patterns, from 0 as in the file, or ranges like those of Python: "196:" are all from 196 on,
            "10:20" are ten.
        marks: Name of an array with a value for each pattern: non-zero where it is to be left out.
        marks_are: Whether that array is non-zero at "bad" patterns, or at "good" ones.
        below: Patterns whose total is below this share of the median total, for example 0.1; empty patterns always are.
        above: Patterns whose total is above this multiple of the median total.
        without_position: Whether to leave out patterns whose position is not finite.
    """

    points: tuple[int | str, ...] = attrs.field(default=(), validator=numbers_or_ranges)
    marks: str | None = None
    marks_are: Literal["bad", "good"] = "bad"
    below: float | None = attrs.field(default=None, validator=_share)
    above: float | None = attrs.field(default=None, validator=_share)
    without_position: bool = False

    def names_any(self) -> bool:
        """Return whether patterns are named, whatever they and their positions are."""
        return bool(self.points) or self.marks is not None
