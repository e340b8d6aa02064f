"""The levels of a U-Net that goes down and up by equal steps along all axes."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from trainkit import Problem
from trainkit_segmentation.sizes import Size


def level_strides(channels: tuple[int, ...], strides: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the strides between levels: those given, else 2 for each."""
    return (2,) * (len(channels) - 1) if strides is None else strides


def levels_problems(channels: tuple[int, ...], strides: tuple[int, ...] | None) -> Iterable[Problem]:
    """Yield what does not fit together in the levels of a U-Net."""
    if len(channels) < 2:
        yield Problem(f"at least two levels are needed, got {len(channels)}", "channels")
    elif strides is not None and len(strides) != len(channels) - 1:
        yield Problem(
            f"{len(channels)} levels (channels) have {len(channels) - 1} strides between them, got {len(strides)}",
            "strides",
        )


def levels_divisors(channels: tuple[int, ...], strides: tuple[int, ...] | None) -> Size:
    """Return what the size of a patch has to be a multiple of: along each axis, the product of the strides."""
    whole = prod(level_strides(channels, strides))
    return (whole, whole, whole)
