"""Which half of a scan's evidence is used: the settings."""

from __future__ import annotations

from typing import Literal

import attrs

from trainkit import component


@component
class Half:
    """One of two halves of a scan's evidence, for two reconstructions that are compared (``trainkit resolution``).

    Attributes:
        of: "points": every second scan point that is trained on, along a curve through all of them, on a grid like the
            white fields of a chessboard. "counts": every count of each pattern falls to one of the halves by the toss
            of a coin; the patterns must be counts.
        part: 1 or 2; together they are the whole.
    """

    of: Literal["points", "counts"] = "points"
    part: int = attrs.field(default=1, validator=attrs.validators.in_((1, 2)))
