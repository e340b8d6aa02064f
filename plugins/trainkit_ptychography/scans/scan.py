"""What a reader hands over: a scan in one convention, whatever the file's was; and the checks that each one passes.

Shapes: N = scan points, Y, X = rows and columns of the detector, M = probe modes, K, L = those of the true phase.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, free_host_memory, shape_in_words
from trainkit_ptychography.scans.patterns import Patterns, pieces
from trainkit_ptychography.scans.positions import likely_unit
from trainkit_ptychography.scans.sampling import neighbour_distances

_SMALLEST_SCAN = 1e-3  # pixels
_BYTES_A_PIXEL = 32  # of an object: phase and absorption, their gradients, and Adam's moments


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
        mask_YX: Which pixels of a pattern count, zero frequency at [0, 0]; None: all. The others are 0.
        positions_unit: The unit in which the positions were said to be, before they were brought to pixels.
    """

    positions_N2: NDArray[np.float64]
    source: str
    pixel_size_angstrom: float | None = None
    wavelength_angstrom: float | None = None
    semiangle_mrad: float | None = None
    defocus_angstrom: float | None = None
    probe_MYX: NDArray[np.complexfloating] | None = None
    truth: Truth | None = None
    mask_YX: NDArray[np.bool_] | None = None
    positions_unit: str = "pixels"


class Recording(NamedTuple):
    """What a reader returns.

    Attributes:
        intensities_NYX: Counts, or anything proportional; zero frequency at [0, 0]. An array, or patterns in a file.
        scan: What else is known.
    """

    intensities_NYX: Patterns
    scan: Scan


class Survey(NamedTuple):
    """What one look at all patterns tells.

    Attributes:
        totals_N: Each pattern's total, over the pixels that count.
        mean_YX: The mean pattern, zero frequency at [0, 0].
    """

    totals_N: NDArray[np.float64]
    mean_YX: NDArray[np.float64]


class Checked(NamedTuple):
    """A recording that can be used.

    Attributes:
        intensities_NYX: As in `Recording`.
        scan: As in `Recording`.
        survey: What was seen in the patterns on the way.
    """

    intensities_NYX: Patterns
    scan: Scan
    survey: Survey


def checked(recording: Recording) -> Checked:
    """Look at all of a recording, once, and return it if it can be used.

    Raises:
        DataError: Shapes or counts disagree, values are not finite or negative, or positions cannot be those of a scan;
            says what to change.
    """
    patterns, scan = recording
    num, shape = len(patterns), patterns.shape[1:]
    if num == 0 or 0 in shape:
        raise DataError(f"{scan.source}: there are no patterns (shape {patterns.shape})")
    if scan.positions_N2.shape != (num, 2):
        raise DataError(
            f"{scan.source}: {num} patterns but positions of shape {scan.positions_N2.shape}; there must be one (row, "
            "column) for each pattern: check the names of both arrays"
        )
    if not np.isfinite(scan.positions_N2).all():
        first = int(np.flatnonzero(~np.isfinite(scan.positions_N2).all(axis=1))[0])
        raise DataError(f"{scan.source}: the position of pattern {first} is not finite; leave such patterns out")
    if scan.probe_MYX is not None:
        if scan.probe_MYX.shape[1:] != shape:
            raise DataError(
                f"{scan.source}: the probe has {shape_in_words(scan.probe_MYX.shape[1:])} pixels, the patterns have "
                f"{shape_in_words(shape)}"
            )
        if not (np.isfinite(scan.probe_MYX).all() and scan.probe_MYX.any()):
            raise DataError(f"{scan.source}: the probe is zero or holds values that are not finite")
    if scan.truth is not None and scan.truth.positions_N2.shape != (num, 2):
        raise DataError(
            f"{scan.source}: {num} patterns but true positions of shape {scan.truth.positions_N2.shape}; there must be "
            "one for each pattern"
        )
    _check_positions(scan, (shape[0], shape[1]))
    return Checked(patterns, scan, _survey(patterns, scan))


def _check_positions(scan: Scan, shape: tuple[int, int]) -> None:
    """See that positions can be those of a scan, seen through patches of this many pixels."""
    positions_N2, unit, room = scan.positions_N2, scan.positions_unit, min(shape)
    if len(positions_N2) < 2:
        return
    extent_2 = np.ptp(positions_N2, axis=0)
    hint_for = partial(likely_unit, unit=unit, pixel_size_angstrom=scan.pixel_size_angstrom, room=room)
    if extent_2.max() < _SMALLEST_SCAN:
        step = float(np.median(np.hypot(*np.diff(positions_N2, axis=0).T)))
        raise DataError(
            f"{scan.source}: all positions lie within {extent_2.max():.2g} pixels, so nothing was scanned; check "
            f"positions_unit (now {unit}) and the pixel size{hint_for(step)}"
        )
    step = float(np.median(neighbour_distances(positions_N2)))
    if step > max(shape):
        raise DataError(
            f"{scan.source}: scan points are {step:.4g} pixels apart, but a patch has {shape_in_words(shape)}, so no "
            "two "
            f"patterns see the same place; check positions_unit (now {unit}) and the pixel size{hint_for(step)}"
        )
    object_bytes = _BYTES_A_PIXEL * float(np.prod(extent_2 + np.array(shape)))
    if object_bytes > (free := free_host_memory()):
        middle_2 = np.median(positions_N2, axis=0)
        furthest = int(np.abs(positions_N2 - middle_2).max(axis=1).argmax())
        raise DataError(
            f"{scan.source}: the scan spans {extent_2[0]:.4g} × {extent_2[1]:.4g} pixels; an object of that size takes "
            f"{bytes_in_words(object_bytes)}, and {bytes_in_words(free)} are free. Pattern {furthest} is the furthest "
            "out, "
            f"at ({positions_N2[furthest, 0]:.4g}, {positions_N2[furthest, 1]:.4g}): leave out positions that are "
            "wrong, "
            f"or check positions_unit (now {unit}){hint_for(step)}"
        )


def _survey(patterns: Patterns, scan: Scan) -> Survey:
    totals_N, mean_YX = np.empty(len(patterns)), np.zeros(patterns.shape[1:])
    low = np.inf
    for piece, patterns_BYX in pieces(patterns):
        # NaN and infinity show in the total. Each row is summed for itself: the same bits however many there are.
        totals_N[piece] = patterns_BYX.reshape(len(patterns_BYX), -1).sum(axis=1, dtype=np.float64)
        mean_YX += patterns_BYX.sum(axis=0, dtype=np.float64) / len(patterns)
        low = min(low, float(patterns_BYX.min()))
    if not np.isfinite(totals_N).all():
        bad = np.flatnonzero(~np.isfinite(totals_N))
        raise DataError(
            f"{scan.source}: {len(bad)} of {len(patterns)} patterns hold values that are not finite, the first is "
            f"pattern {bad[0]}; mark bad pixels (prepare.mask, prepare.bad_pixels), or leave these patterns out"
        )
    if low < 0:
        raise DataError(
            f"{scan.source}: intensities go down to {low:.4g}, but counts are not negative; if these are amplitudes, "
            'say values = "amplitude"; if a background was subtracted, prepare.background = 0.0 sets them to 0'
        )
    if totals_N.max() == 0:
        raise DataError(f"{scan.source}: all patterns are zero; check the name of the patterns' array")
    return Survey(totals_N, mean_YX)
