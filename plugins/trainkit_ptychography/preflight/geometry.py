"""A guess of the geometry, as a difference from what a recipe tells.

Shapes: N = scan points.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Scan

BOTH_AXES = ("rows", "columns")


@attrs.frozen
class Geometry:
    """By what the true geometry would differ from the one that is told. As it is made, it does not differ.

    A scan that is flipped or turned stands for a detector that is flipped or turned the other way.

    Attributes:
        swapped: Rows and columns of the scan are exchanged; this comes first.
        flips: Axes of the scan that run the other way; this comes next.
        rotation_deg: By how much the scan is then turned, from the column axis towards the row axis.
        step_factor: Distances between scan points, over those that are told.
        defocus_change_angstrom: The true underfocus less the one that is told.
        detector_factor: Size of a detector pixel, over the one that is told.
        semiangle_factor: The aperture's half opening angle, over the one that is told.
    """

    swapped: bool = False
    flips: tuple[str, ...] = ()
    rotation_deg: float = 0.0
    step_factor: float = 1.0
    defocus_change_angstrom: float = 0.0
    detector_factor: float = 1.0
    semiangle_factor: float = 1.0

    def positions(self, scan: Scan) -> NDArray[np.float64]:
        """Return a scan's positions (N, 2), in pixels, as they would be."""
        factor = self.step_factor
        if scan.positions_unit != "pixels":
            factor *= self.detector_factor  # an object pixel is 1 / (rows · detector pixel)
        return factor * oriented(scan.positions_N2, self.swapped, self.flips, self.rotation_deg)

    def folded(self) -> Geometry:
        """Return the same geometry with a rotation within ±45°; quarter turns are expressed by exchange and flips."""
        swapped, flips, angle = self.swapped, self.flips, self.rotation_deg
        while abs(angle) > 45:
            # A quarter turn from the column axis towards the row axis takes (row, column) to (column, −row).
            turn = 1 if angle > 0 else -1
            angle -= 90 * turn
            signs = {name: -1 if name in flips else 1 for name in BOTH_AXES}
            rows, columns = (turn * signs["columns"], -turn * signs["rows"])
            swapped = not swapped
            flips = tuple(name for name, sign in zip(BOTH_AXES, (rows, columns), strict=True) if sign < 0)
        return attrs.evolve(self, swapped=swapped, flips=flips, rotation_deg=angle)

    def scan(self, scan: Scan) -> Scan:
        """Return a scan with the pixel size as it would be."""
        size = scan.pixel_size_angstrom
        return scan if size is None else attrs.evolve(scan, pixel_size_angstrom=size / self.detector_factor)


ORIENTATIONS = tuple(
    (swapped, flips) for swapped in (False, True) for flips in ((), ("rows",), ("columns",), BOTH_AXES)
)
"""The eight ways in which the axes of a scan can lie along those of the detector: exchanged or not, and flips."""

MIRRORED = Geometry(flips=BOTH_AXES)
"""The detector turned by 180°, or, of a round probe, the other sign of the defocus: both give the same patterns, with
the object's phase negated in one of them."""
