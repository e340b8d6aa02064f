"""What is removed from the mask of a class after a prediction: the settings."""

from __future__ import annotations

import attrs
from attrs.validators import ge

from trainkit import component


@component
class Cleaning:
    """Removes parts of a mask that are unlikely. Voxels that touch at a corner belong to one part.

    Attributes:
        keep_largest: Whether only the largest part is kept.
        smallest_ml: Parts that are smaller than this are removed, in millilitres.
    """

    keep_largest: bool = False
    smallest_ml: float = attrs.field(default=0.0, validator=ge(0.0))
