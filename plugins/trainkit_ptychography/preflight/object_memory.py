"""How much memory an object of several modes takes, for ``check --data``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainkit import bytes_in_words
from trainkit_ptychography.physics.geometry import place

if TYPE_CHECKING:
    from trainkit_ptychography.scans.kind import DiffractionData

_BYTES = 4 * 2 * 4  # single precision; phase and absorption; value, gradient and two moments of Adam


def inspect_object_memory(data: DiffractionData, modes: int, slices: int, margin: int) -> Iterator[str]:
    """Yield the size of an object of pixels, with its gradient and an optimizer's two moments."""
    patterns, scan = data.read()
    rows, columns = place(scan.positions_N2, (patterns.shape[1], patterns.shape[2]), margin).shape_HW
    size = bytes_in_words(modes * slices * rows * columns * _BYTES)
    yield (
        f"object       {modes} modes of {slices} slice{'s' if slices > 1 else ''} of {rows} × {columns} pixels: up to "
        f"{size} with gradients and two moments"
    )
