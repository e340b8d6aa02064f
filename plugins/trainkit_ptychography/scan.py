"""What a reader hands over: a scan in one convention, whatever the file's was; and the checks that each one passes.

Shapes: N = scan points, Y, X = rows and columns of the detector, M = probe modes, K, L = those of the true phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError


@attrs.frozen(kw_only=True, eq=False)
class Truth:
    """What a simulation knows.

    Attributes:
        phase_KL: The object's phase in rad; pixel [i, j] is at position (i, j).
        positions_N2: Where the patterns were really taken, in pixels.
    """

    phase_KL: NDArray[np.floating]
    positions_N2: NDArray[np.float64]


@attrs.frozen(kw_only=True, eq=False)
class Scan:
    """What is known of a diffraction scan, besides the patterns.

    Attributes:
        positions_N2: Where the probe's centre was, (row, column) in pixels of the object; any origin.
        source: What it was read from, as messages call it.
        pixel_size_angstrom: Size of an object pixel; None where nothing tells.
        wavelength_angstrom: None where nothing tells.
        semiangle_mrad: The aperture's half opening angle, where the data tells.
        defocus_angstrom: Underfocus, where the data tells.
        probe_MYX: A guess of the probe that came with the data, centred at (Y//2, X//2).
        truth: What a simulation knows.
    """

    positions_N2: NDArray[np.float64]
    source: str
    pixel_size_angstrom: float | None = None
    wavelength_angstrom: float | None = None
    semiangle_mrad: float | None = None
    defocus_angstrom: float | None = None
    probe_MYX: NDArray[np.complexfloating] | None = None
    truth: Truth | None = None


class Recording(NamedTuple):
    """What a reader returns.

    Attributes:
        intensities_NYX: Counts, or anything proportional; zero frequency at [0, 0].
        scan: What else is known.
    """

    intensities_NYX: NDArray[np.float32]
    scan: Scan


def checked(recording: Recording) -> Recording:
    """Return the recording if it can be used.

    Raises:
        DataError: Shapes or counts disagree, or values are not finite or negative; says what to change.
    """
    intensities_NYX, scan = recording
    num, shape = len(intensities_NYX), intensities_NYX.shape[1:]
    if num == 0 or 0 in shape:
        raise DataError(f"{scan.source}: there are no patterns (shape {intensities_NYX.shape})")
    if scan.positions_N2.shape != (num, 2):
        raise DataError(
            f"{scan.source}: {num} patterns but positions of shape {scan.positions_N2.shape}; there must be one (row, "
            "column) for each pattern: check the names of both arrays"
        )
    if not np.isfinite(scan.positions_N2).all():
        first = int(np.flatnonzero(~np.isfinite(scan.positions_N2).all(axis=1))[0])
        raise DataError(f"{scan.source}: the position of pattern {first} is not finite; leave such patterns out")
    totals_N = intensities_NYX.sum(axis=(1, 2), dtype=np.float64)  # NaN and infinity show in the total
    if not np.isfinite(totals_N).all():
        bad = np.flatnonzero(~np.isfinite(totals_N))
        raise DataError(
            f"{scan.source}: {len(bad)} of {num} patterns hold values that are not finite, the first is pattern "
            f"{bad[0]}; replace them (dead pixels by 0) or leave these patterns out"
        )
    if (low := float(intensities_NYX.min())) < 0:
        raise DataError(
            f"{scan.source}: intensities go down to {low:.4g}, but counts are not negative; subtract no more "
            'background than there is, or, if these are amplitudes, say values = "amplitude"'
        )
    if totals_N.max() == 0:
        raise DataError(f"{scan.source}: all patterns are zero; check the name of the patterns' array")
    if scan.probe_MYX is not None:
        if scan.probe_MYX.shape[1:] != shape:
            raise DataError(
                f"{scan.source}: the probe has {_by(scan.probe_MYX.shape[1:])} pixels, the patterns have {_by(shape)}"
            )
        if not (np.isfinite(scan.probe_MYX).all() and scan.probe_MYX.any()):
            raise DataError(f"{scan.source}: the probe is zero or holds values that are not finite")
    if scan.truth is not None and scan.truth.positions_N2.shape != (num, 2):
        raise DataError(
            f"{scan.source}: {num} patterns but true positions of shape {scan.truth.positions_N2.shape}; there must be "
            "one for each pattern"
        )
    return recording


def summary(recording: Recording) -> Iterator[str]:
    """Yield lines that a person recognises their experiment by."""
    intensities_NYX, scan = recording
    num, shape = len(intensities_NYX), intensities_NYX.shape[1:]
    totals_N = intensities_NYX.sum(axis=(1, 2), dtype=np.float64)
    extent = np.ptp(scan.positions_N2, axis=0)
    yield f"patterns     {num} of {_by(shape)} pixels ({num * shape[0] * shape[1] * 4 / 2**20:.0f} MiB)"
    yield f"counts       {totals_N.mean():.4g} a pattern ({totals_N.min():.4g} to {totals_N.max():.4g})"
    yield f"scanned      {extent[0]:.1f} × {extent[1]:.1f} pixels, typical step {_typical_step(scan.positions_N2):.2f}"
    if scan.pixel_size_angstrom is None:
        yield "pixel size   not known: everything is in pixels"
    else:
        size = scan.pixel_size_angstrom
        yield f"pixel size   {size:.4g} Å, so {extent[0] * size:.4g} × {extent[1] * size:.4g} Å were scanned"
        if scan.wavelength_angstrom is not None:
            reach = 1e3 * scan.wavelength_angstrom / (2 * size)
            yield f"wavelength   {scan.wavelength_angstrom:.5g} Å; the detector reaches to {reach:.4g} mrad"
    if scan.probe_MYX is not None:
        yield f"probe guess  {len(scan.probe_MYX)} mode(s)"
    if scan.truth is not None:
        yield "truth        known: object phase and positions"


def _typical_step(positions_N2: NDArray[np.float64]) -> float:
    """Return the median distance between one point and the next in order of the scan."""
    if len(positions_N2) < 2:
        return 0.0
    return float(np.median(np.hypot(*np.diff(positions_N2, axis=0).T)))


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
