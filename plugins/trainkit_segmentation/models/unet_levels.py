"""What U-Nets have in common that go down and up by equal steps along all axes."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge, lt

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from trainkit import Recipe


@component
class LevelledUNet(SegmentationModel):
    """A U-Net whose levels differ by one factor along all axes.

    Attributes:
        channels: Features of each level, the finest first; at least two levels.
        strides: Factor by which each level but the last is coarsened; 2 if not given.
        dropout: Share of features that are dropped; 0 … 1.
    """

    channels: tuple[int, ...] = attrs.field(default=(16, 32, 64, 128), validator=at_least_one)
    strides: tuple[int, ...] | None = attrs.field(default=None, validator=at_least_one)
    dropout: float = attrs.field(default=0.0, validator=[ge(0), lt(1)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        levels = len(self.channels)
        if levels < 2:
            yield Problem(f"at least two levels are needed, got {levels}", "channels")
        elif self.strides is not None and len(self.strides) != levels - 1:
            yield Problem(
                f"{levels} levels (channels) have {levels - 1} strides between them, got {len(self.strides)}", "strides"
            )
        yield from super().problems(recipe)

    def level_strides(self) -> tuple[int, ...]:
        """Return the strides between levels: those given, else 2 for each."""
        return (2,) * (len(self.channels) - 1) if self.strides is None else self.strides

    def divisors(self) -> Size:
        """Return the product of the strides, for each axis."""
        whole = prod(self.level_strides())
        return (whole, whole, whole)
