"""What the U-Nets have in common that nnU-Net plans: strides and kernel sizes for each axis."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge

from trainkit import Problem, component
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from trainkit import Recipe


@component
class PlannedUNet(SegmentationModel):
    """A U-Net whose levels differ by a factor of their own along each axis.

    Attributes:
        channels: Features of each level, the finest first; at least two levels.
        strides: Factor by which each level but the first is coarser than the one before, along each axis; 2 if not
            given. Use 1 along the axis of thick slices as long as they are thicker than the pixels of a slice.
        kernel_sizes: Size of the convolutions of each level along each axis; 3 if not given.
        deep_supervision: Number of coarser levels whose scores enter the loss too, in training.
    """

    fewest_levels: ClassVar[int] = 2
    """How many levels a network of this kind needs."""

    channels: tuple[int, ...] = attrs.field(default=(32, 64, 128, 256, 320), validator=at_least_one)
    strides: tuple[Size, ...] | None = attrs.field(default=None, validator=at_least_one)
    kernel_sizes: tuple[Size, ...] | None = attrs.field(default=None, validator=at_least_one)
    deep_supervision: int = attrs.field(default=0, validator=ge(0))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        levels = len(self.channels)
        if levels < self.fewest_levels:
            yield Problem(f"at least {self.fewest_levels} levels are needed, got {levels}", "channels")
        if self.strides is not None and len(self.strides) != levels - 1:
            yield Problem(
                f"{levels} levels (channels) have {levels - 1} strides between them, got {len(self.strides)}", "strides"
            )
        if self.kernel_sizes is not None and len(self.kernel_sizes) != levels:
            yield Problem(
                f"there are {levels} levels (channels), got {len(self.kernel_sizes)} kernel sizes", "kernel_sizes"
            )
        if self.deep_supervision > (most := max(levels - 2, 0)):
            yield Problem(
                f"a network of {levels} levels has {most} that can be supervised besides the finest", "deep_supervision"
            )
        yield from super().problems(recipe)

    def divisors(self) -> Size:
        """Return the product of the strides, along each axis."""
        x, y, z = (prod(along) for along in zip(*self.level_strides(), strict=True))
        return (x, y, z)

    def level_strides(self) -> tuple[Size, ...]:
        """Return the strides of each level: 1 for the first; of the others those given, else 2."""
        between = ((2, 2, 2),) * (len(self.channels) - 1) if self.strides is None else self.strides
        return ((1, 1, 1), *between)

    def level_kernel_sizes(self) -> tuple[Size, ...]:
        """Return the kernel sizes of each level: those given, else 3."""
        return self.kernel_sizes or ((3, 3, 3),) * len(self.channels)
