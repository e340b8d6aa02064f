"""Units of length in headers, which are converted to mm."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from trainkit_segmentation.files.header import Array, spacing_of

_MM_IN = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("", "?", "???", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    # The micro sign, and the Greek letter that looks like it.
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-6),
}
_LARGE_MM = 100.0  # voxels of this size are hardly meant


@attrs.frozen
class InMillimetres:
    """An affine in mm.

    Attributes:
        affine: (4, 4), from voxels to mm.
        conversion: A sentence on the units that were converted; None: they were mm, or the header says none.
        question: What is doubtful about the units; None: nothing.
    """

    affine: Array = attrs.field(eq=False)
    conversion: str | None = None
    question: str | None = None


def in_millimetres(affine: Array, units: Sequence[str]) -> InMillimetres:
    """Convert an affine to mm.

    Args:
        affine: (4, 4), from voxels to coordinates in the header's units.
        units: Unit of each coordinate as the header writes it; "" and missing ones: mm.
    """
    named = [each.strip() for each in units[:3]]
    factors = [_MM_IN.get(each.lower()) for each in named]
    if unknown := [each for each, factor in zip(named, factors, strict=True) if factor is None]:
        return InMillimetres(affine, question=f'the header gives lengths in "{unknown[0][:20]}", which are taken as mm')
    scales = np.array([*(factor or 1.0 for factor in factors), *[1.0] * (4 - len(factors))])
    if (scales == 1.0).all():
        return InMillimetres(affine)
    converted: Array = scales[:, None] * affine
    of = " and ".join(dict.fromkeys(each for each, factor in zip(named, factors, strict=True) if factor != 1.0))
    sentence = f"the header gives lengths in {of}, which are converted to mm"
    largest = float(spacing_of(converted).max())
    if largest < _LARGE_MM:
        return InMillimetres(converted, sentence)
    question = f"a voxel is {largest:.4g} mm large, because the header gives lengths in {of}; correct its unit"
    return InMillimetres(converted, sentence, question)
