"""What is done to patterns on their way from the file: the settings."""

from __future__ import annotations

from typing import Literal

import attrs

from trainkit import component


def pair_of_counts(
    instance: object, attribute: attrs.Attribute[tuple[int, int] | None], value: tuple[int, int] | None
) -> None:
    """Check that both numbers of a pair, where one is given, are 1 or more (an attrs validator)."""
    if value is not None and min(value) < 1:
        raise ValueError(f"must be 1 or more, got {list(value)}")


_places = attrs.validators.deep_iterable(attrs.validators.ge(0))


@component
class Prepare:
    """What is done to patterns, in this order: bad values, background, bad pixels, crop, binning, padding.

    Pixels are counted from 0 in the patterns as ``pattern_axes`` orders them, before anything else is done.

    Attributes:
        background: Counts to subtract from intensities: one number for each pixel, or the name of an array (rows,
            columns). What falls below 0 becomes 0; so ``0.0`` clips the negative half of a noise around 0. It is not
            for values that mark a pixel, such as -1: these would become measured zeros.
        mask: Name of an array that marks bad pixels: (rows, columns), or one such mask for each pattern, with the axes
            of the patterns; then several names are joined as those of patterns are. They do not count in the loss, and
            may be NaN.
        mask_marks: Whether the mask is non-zero at "bad" pixels, or at "good" ones.
        bad_pixels: Further bad pixels, [row, column] each.
        bad_rows: Rows that are bad as a whole.
        bad_columns: Columns that are bad as a whole.
        bad_values: Stored values that mean "not measured", for example [-1, -2] in gaps and dead pixels, [65535] or
            [nan]. A pixel does not count in those patterns in which it has one of them.
        bad_above: Stored values above this one mean "not measured" as well: a saturated pixel, a cosmic ray.
        crop: Rows and columns of the detector to keep, around the beam. This makes object pixels larger.
        bin: Detector pixels to sum up, along rows and along columns, in bins centred on the beam as well as whole
            pixels allow. A bin that is not wholly on the detector does not count. This makes a probe's array smaller.
        pad: Rows and columns to pad patterns to, after binning. This makes object pixels smaller.
        beyond_detector: What padding holds: "unknown" does not count in the loss, "dark" counts as measured zeros.
    """

    background: float | str | None = None
    mask: str | tuple[str, ...] | None = None
    mask_marks: Literal["bad", "good"] = "bad"
    bad_pixels: tuple[tuple[int, int], ...] = attrs.field(default=(), validator=attrs.validators.deep_iterable(_places))
    bad_rows: tuple[int, ...] = attrs.field(default=(), validator=_places)
    bad_columns: tuple[int, ...] = attrs.field(default=(), validator=_places)
    bad_values: tuple[float, ...] = ()
    bad_above: float | None = None
    crop: tuple[int, int] | None = attrs.field(default=None, validator=pair_of_counts)
    bin: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    pad: tuple[int, int] | None = attrs.field(default=None, validator=pair_of_counts)
    beyond_detector: Literal["unknown", "dark"] = "unknown"
