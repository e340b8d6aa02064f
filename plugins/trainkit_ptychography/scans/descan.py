"""Whether the light stays where it is on the detector while the beam scans.

Below the specimen, a microscope tilts the beam back (descan). Where that is missing, or not quite right, patterns move
along with the scan. A reconstruction that takes them as they are puts a phase into the object that bends all over it.

Shapes: N = patterns that are looked at, Y, X = rows and columns of a pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.patterns import Patterns
from trainkit_ptychography.scans.scan import Scan

_LOOKED_AT, _PIECE = 144, 16
_FEWEST = 25
_SURE = 6.0  # standard errors
_LEAST = 0.5  # detector pixels, across the scan
_OUTLIER = 5.0  # times the median distance from the fit


class MotionOfLight(NamedTuple):
    """How the centre of mass of patterns moves along with a scan.

    Attributes:
        matrix_22: A step (row, column) @ matrix is by how many pixels of the detector it moves.
        error_22: The standard error of each.
        extent_2: By how much positions differ along each axis.
    """

    matrix_22: NDArray[np.float64]
    error_22: NDArray[np.float64]
    extent_2: NDArray[np.float64]

    def across(self) -> NDArray[np.float64]:
        """Return by how many (rows, columns) light moves over the scan, along its rows and along its columns (2, 2)."""
        moved_22: NDArray[np.float64] = self.extent_2[:, None] * self.matrix_22
        return moved_22

    def is_seen(self) -> bool:
        """Return whether light moves beyond doubt."""
        sure = np.abs(self.matrix_22) > _SURE * self.error_22
        return bool((sure & (np.abs(self.across()) > _LEAST)).any())


def motion_of_light(
    patterns: Patterns, positions_N2: NDArray[np.float64], mask_YX: NDArray[np.bool_] | None
) -> MotionOfLight | None:
    """Return how light moves along with a scan; None: there are too few patterns that hold any.

    Args:
        patterns: The patterns; a few dozen are read. Zero frequency at [0, 0].
        positions_N2: Where they were taken.
        mask_YX: Which pixels count; None: all.
    """
    some = np.unique(np.linspace(0, len(patterns) - 1, _LOOKED_AT).round().astype(np.int64))
    waves = [np.exp(2j * np.pi * np.arange(size) / size) for size in patterns.shape[1:]]
    found = []
    for piece in np.split(some, np.arange(_PIECE, len(some), _PIECE)):
        values_BYX = np.nan_to_num(np.asarray(patterns[piece], np.float64))
        if mask_YX is not None:
            values_BYX = values_BYX * mask_YX
        found.append([values_BYX.sum(2) @ waves[0], values_BYX.sum(1) @ waves[1]])
    turns_N2 = np.concatenate(found, axis=1).T
    lit_N = (np.abs(turns_N2) > 0).all(axis=1)
    some, turns_N2 = some[lit_N], turns_N2[lit_N]
    if len(some) < _FEWEST:
        return None
    turns_N2 = turns_N2 / turns_N2.sum(axis=0)  # about the mean: no jump where an axis ends
    centre_N2 = np.angle(turns_N2) / (2 * np.pi) * np.array(patterns.shape[1:])
    at_N2 = positions_N2[some] - positions_N2[some].mean(axis=0)
    kept_N = np.ones(len(some), bool)
    for _ in range(2):
        inverse_2N = np.linalg.pinv(at_N2[kept_N])
        matrix_22 = inverse_2N @ (centre_N2[kept_N] - centre_N2[kept_N].mean(axis=0))
        off_N2 = centre_N2 - centre_N2[kept_N].mean(axis=0) - at_N2 @ matrix_22
        away_N = np.hypot(*off_N2.T)
        kept_N = away_N <= _OUTLIER * np.median(away_N) + 1e-9
    scatter_2 = off_N2[kept_N].std(axis=0)
    error_22 = np.sqrt(np.square(inverse_2N).sum(axis=1))[:, None] * scatter_2
    return MotionOfLight(matrix_22, error_22, np.ptp(positions_N2, axis=0))


def doubt_of_descan(patterns: Patterns, scan: Scan) -> str | None:
    """Return that light moves along with a scan, and what follows; None: it does not, or that cannot be told.

    Args:
        patterns: The patterns.
        scan: What is known about them.
    """
    motion = motion_of_light(patterns, scan.positions_N2, scan.mask_YX)
    if motion is None or not motion.is_seen():
        return None
    (down, right), (down_2, right_2) = motion.across()
    bends_22 = np.abs(motion.matrix_22) / np.array(patterns.shape[1:]) * (motion.extent_2[:, None] / 2) ** 2
    bent = np.pi * float(bends_22.max())
    return (
        f"the light moves along with the scan: by ({down:.1f}, {right:.1f}) pixels of the detector (rows, columns) "
        f"from the top of the scanned area to its bottom, and by ({down_2:.1f}, {right_2:.1f}) from left to right, as "
        "if the beam were not tilted back (descan). A reconstruction takes that for a phase that bends, here by about "
        f"{bent:.1g} rad from the middle of the scan to its edge: move the patterns back by as much before they are "
        "read, unless the specimen itself bends the phase so, as a field over all of it does"
    )
