"""What looks wrong with a guess of the probe.

Shapes: M = modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_WEAK = 1e-4  # of the total power


def doubts_of_guess(probe_MYX: NDArray[np.complexfloating], where: str) -> Iterator[str]:
    """Yield what looks wrong: a probe that is cut in four, and modes of next to no power.

    Args:
        probe_MYX: The guess, its middle at pixel (Y//2, X//2) as it is told.
        where: Where it was found.
    """
    power_MYX = np.abs(probe_MYX) ** 2
    total_YX = power_MYX.sum(axis=0, dtype=np.float64)
    if not (np.isfinite(total_YX).all() and total_YX.any()):
        return  # refused elsewhere
    as_told, cornered = (_spread(each) for each in (total_YX, np.fft.fftshift(total_YX)))
    if cornered < 0.5 * as_told:
        yield (
            f"{where} is cut in four: its light is at the corners of the array, not in the middle. If its middle is "
            'pixel [0, 0], say centre = "corner"'
        )
    shares_M = power_MYX.sum(axis=(1, 2), dtype=np.float64) / total_YX.sum()
    weak = np.flatnonzero(shares_M < _WEAK)
    if len(weak) and len(shares_M) > 1:
        yield (
            f"{where} has all its power in {len(shares_M) - len(weak)} of {len(shares_M)} modes (the others have "
            f"{', '.join(f'{share:.1g}' for share in shares_M[weak])}), and a mode of next to no power hardly changes: "
            f"take fewer (modes = {len(shares_M) - len(weak)}), or say the powers that they are to begin with (powers)"
        )


def _spread(intensity_YX: NDArray[np.float64]) -> float:
    """Return the mean square distance of the light from pixel (Y//2, X//2)."""
    rows, columns = (np.arange(size) - size // 2 for size in intensity_YX.shape)
    return float((intensity_YX * (rows[:, None] ** 2 + columns**2)).sum() / intensity_YX.sum())
