"""Whether a tilt that a run was to find was found: columns of the result are then straight along the beam.

Shapes: S = slices, N = scan points, H, W = rows and columns of the object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.physics.lean import lean

_MOST = 1.0  # pixels, by which columns may lean from the first slice to the last
_LEAST_MRAD = 1.5
_AGREE = 0.5  # of the pairs of slices; where columns are straight, hardly any agree on a lean
_FEWEST_PIXELS = 12


def doubt_of_tilt(
    phase_SHW: NDArray[np.floating],
    positions_N2: NDArray[np.float64],
    pixel_size_angstrom: float,
    spacing_angstrom: float,
    tilt_mrad: tuple[float, float],
) -> str | None:
    """Return why a tilt is wrong by all appearance; None: it is not.

    Patterns alone cannot tell a tilt from columns that lean. A run finds it by keeping columns straight, which fails
    where they end at a boundary between grains: two grains, one behind the other, pulled it to the wrong side. But each
    grain then leans in the result, once nothing keeps it straight any more.

    Args:
        phase_SHW: Phase of the slices, in the order of the beam.
        positions_N2: Where the probe's centre was, in pixels of the object.
        pixel_size_angstrom: Size of a pixel.
        spacing_angstrom: From one slice to the next.
        tilt_mrad: The tilt with which the run ended.
    """
    first_2 = np.maximum(np.floor(positions_N2.min(axis=0)).astype(int), 0)
    last_2 = np.ceil(positions_N2.max(axis=0)).astype(int) + 1
    seen_SHW = phase_SHW[:, first_2[0] : last_2[0], first_2[1] : last_2[1]]
    if min(seen_SHW.shape[1:]) < _FEWEST_PIXELS:
        return None
    found = lean(seen_SHW, pixel_size_angstrom, spacing_angstrom)
    if found is None or found.agreeing <= _AGREE:
        return None
    most = 1e3 * _MOST * pixel_size_angstrom / (spacing_angstrom * len(phase_SHW))
    if np.hypot(*found.mrad_2) < max(most, _LEAST_MRAD):
        return None
    rows, columns = (ended - leaning for ended, leaning in zip(tilt_mrad, found.mrad_2, strict=True))
    return (
        f"columns of the result lean by {found.mrad_2[0]:.2g}, {found.mrad_2[1]:.2g} mrad (rows, columns) against the "
        f"beam, so group tilt, which ended at {tilt_mrad[0]:.2g}, {tilt_mrad[1]:.2g} mrad, has not found the tilt "
        "(grains at different depths mislead it, or it trained too shortly): run again without that group, with "
        f"tilt_mrad = [{rows:.2g}, {columns:.2g}], and a slice_coupling of a few Å only"
    )
