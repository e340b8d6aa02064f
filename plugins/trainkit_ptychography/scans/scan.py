"""What a reader returns: a scan in one convention, whatever the file's was; and the checks that each scan must pass.

Shapes: N = scan points, Y, X = rows and columns of the detector, M = probe modes, K, L = those of the true phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, bytes_in_words, free_host_memory, shape_in_words
from trainkit_ptychography.detector_propagations.far_field import FarField
from trainkit_ptychography.detector_propagations.kind import DetectorPropagation, ExitWave
from trainkit_ptychography.physics.quality import Box, TruthInBox
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.near_field import near_field
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import Patterns, PreparedPatterns, pieces
from trainkit_ptychography.scans.pixels import look_at_pixels, marks
from trainkit_ptychography.scans.positions import likely_unit
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.sampling import neighbour_distances

_SMALLEST_SCAN = 1e-3  # pixels
_LISTED = 200  # patterns that a line names
_BYTES_A_PIXEL = 32  # of an object: phase and absorption, their gradients, and Adam's moments


@attrs.frozen(kw_only=True, eq=False)
class Truth:
    """The truth that a simulation knows.

    Attributes:
        phase_KL: The object's phase in rad; pixel [i, j] is at position (i, j).
        positions_N2: Where the patterns were really taken, in pixels.
        slices_SKL: The phase of each slice of a thick specimen, all equally thick, the one that the beam meets first in
            front; None: it is thin, or this is not known.
    """

    phase_KL: NDArray[np.floating]
    positions_N2: NDArray[np.float64]
    slices_SKL: NDArray[np.floating] | None = None
    _in_boxes: dict[tuple[Any, ...], TruthInBox] = attrs.field(factory=dict, init=False, repr=False)

    def in_box(self, origin_2: NDArray[np.floating], box: Box) -> TruthInBox:
        """Return the phase over a box, in pixels, with which reconstructions are compared that begin at an origin."""
        key = (*(float(each) for each in origin_2), *box)
        if key not in self._in_boxes:
            self._in_boxes.clear()  # a run has one
            self._in_boxes[key] = TruthInBox(self.phase_KL, origin_2, box)
        return self._in_boxes[key]


@attrs.frozen(kw_only=True, eq=False)
class Scan:
    """What is known about a diffraction scan, besides the patterns.

    Attributes:
        positions_N2: Where the probe's centre was, (row, column) in pixels of the object; any origin.
        source: What it was read from, as messages call it.
        pixel_size_angstrom: Size of an object pixel; None if unknown.
        wavelength_angstrom: None if unknown.
        energy_kev: Energy of the radiation; None if unknown.
        semiangle_mrad: The aperture's half opening angle; None if unknown.
        defocus_angstrom: Underfocus; None if unknown.
        probe_MYX: A guess of the probe that came with the data, centred at (Y//2, X//2).
        truth: The truth, if the scan is simulated.
        mask_YX: Which pixels of a pattern count, zero frequency at [0, 0]; None: all. The others are 0.
        frame_masks: Whether pixels that were not measured in a single pattern are NaN there. Otherwise NaN is an error.
        points_N: Numbers of the patterns in their file; None: 0, 1, 2, …
        point_T: The number of the scan point of each pattern in the file, those that are left out included; -1: it has
            none; None: 0, 1, 2, …
        every_point_M2: Where all scan points were, those without a pattern included, but for what is added to each of
            several scans; None: each has a pattern, or no more is known.
        scan_N: Which of several scans of one specimen each pattern belongs to, from 0: the number of its array or file;
            None: there is one.
        left_out: Patterns that were left out, by reason.
        detector_propagation: How the wave behind the specimen reaches the detector.
        detector_distance_m: Distance from specimen to detector; None if unknown.
        detector_pixels: Width of the far field's probe array in pixels of the detector, λ · distance / pixel²; None if
            the distance is not known.
        doubts: What looks wrong to the reader.
        positions_unit: The unit that the positions had before they were converted to pixels.
        positions_dtype: The dtype in which they were stored.
        positions_rounding: The last place of the largest position as it was stored, in pixels.
        prepare: What the recipe says is done to the patterns.
        leave_out: Which patterns the recipe says are left out.
    """

    positions_N2: NDArray[np.float64]
    source: str
    pixel_size_angstrom: float | None = None
    wavelength_angstrom: float | None = None
    energy_kev: float | None = None
    semiangle_mrad: float | None = None
    defocus_angstrom: float | None = None
    probe_MYX: NDArray[np.complexfloating] | None = None
    truth: Truth | None = None
    mask_YX: NDArray[np.bool_] | None = None
    frame_masks: bool = False
    points_N: NDArray[np.int64] | None = None
    point_T: NDArray[np.int64] | None = None
    every_point_M2: NDArray[np.float64] | None = None
    scan_N: NDArray[np.int64] | None = None
    left_out: Mapping[str, int] = {}
    detector_propagation: DetectorPropagation = attrs.field(factory=FarField)
    detector_distance_m: float | None = None
    detector_pixels: float | None = None
    doubts: tuple[str, ...] = ()
    positions_unit: str = "pixels"
    positions_dtype: str = "float64"
    positions_rounding: float = 0.0
    prepare: Prepare | None = None
    leave_out: LeaveOut | None = None

    def exit_wave(self, shape: tuple[int, int]) -> ExitWave:
        """Return what is known of the wave behind the specimen, for patterns of a shape."""
        return ExitWave(
            shape, self.pixel_size_angstrom, self.wavelength_angstrom, self.detector_distance_m, self.source
        )

    def lines(self) -> Lines:
        """Return what writes lines that add to the recipe's settings."""
        return Lines(self.prepare, self.leave_out)

    @property
    def num_scans(self) -> int:
        """Number of scans that were joined."""
        return 1 if self.scan_N is None else int(self.scan_N.max()) + 1

    def some(self, points_N: NDArray[np.int64]) -> Scan:
        """Return what is known about some of the patterns alone; the truth is left out."""
        return attrs.evolve(
            self,
            positions_N2=self.positions_N2[points_N],
            points_N=points_N if self.points_N is None else self.points_N[points_N],
            scan_N=None if self.scan_N is None else self.scan_N[points_N],
            truth=None,
        )

    def number(self, point: int) -> int:
        """Return the number of a pattern in its file."""
        return int(point if self.points_N is None else self.points_N[point])


class Recording(NamedTuple):
    """What a reader returns.

    Attributes:
        intensities_NYX: Counts, or anything proportional; zero frequency at [0, 0]. An array, or patterns in a file.
        scan: What else is known.
    """

    intensities_NYX: Patterns
    scan: Scan

    def with_doubts(self, doubts: Iterable[str]) -> Recording:
        """Return the same recording with further doubts."""
        return self._replace(scan=attrs.evolve(self.scan, doubts=(*self.scan.doubts, *doubts)))


class Survey(NamedTuple):
    """Statistics of all patterns.

    Attributes:
        totals_N: Each pattern's total, over the pixels that count.
        mean_YX: The mean pattern, zero frequency at [0, 0], each pixel over those patterns in which it counts.
    """

    totals_N: NDArray[np.float64]
    mean_YX: NDArray[np.float64]

    @property
    def mean_total(self) -> float:
        """The mean total of a pattern, as if no pixel had failed in a single pattern only."""
        return float(self.mean_YX.sum())


class Checked(NamedTuple):
    """A recording that has passed the checks.

    Attributes:
        intensities_NYX: As in `Recording`.
        scan: As in `Recording`.
        survey: Statistics of its patterns.
    """

    intensities_NYX: Patterns
    scan: Scan
    survey: Survey


def checked(recording: Recording, stored: Patterns | None = None) -> Checked:
    """Check a recording, which reads all its patterns once, and return it with their statistics.

    Args:
        recording: The recording.
        stored: The patterns as they are in their file, if those of the recording were read into memory: they explain
            what is wrong.

    Raises:
        DataError: Shapes or counts disagree, values are not finite or negative, or positions cannot be those of a scan;
            says what to change.
    """
    check_shapes(recording)
    patterns = recording.intensities_NYX
    return Checked(patterns, *_surveyed(patterns, recording.scan, patterns if stored is None else stored))


def check_shapes(recording: Recording) -> None:
    """Check what can be checked without reading the patterns.

    Raises:
        DataError: Shapes disagree, or positions cannot be those of a scan; says what to change.
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
        lost = np.flatnonzero(~np.isfinite(scan.positions_N2).all(axis=1))
        raise DataError(
            f"{scan.source}: the positions of {len(lost)} of {num} patterns are not finite, the first is that of "
            f"pattern {scan.number(lost[0])}; leave these patterns out: {scan.lines().leave_out(without_position=True)}"
        )
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
    _check_positions(patterns, scan)


def _check_positions(patterns: Patterns, scan: Scan) -> None:
    """Check that positions can be those of a scan with patches of this shape."""
    shape = patterns.shape[1:]
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
        if near := unsaid_near_field(patterns, scan):
            raise DataError(f"{scan.source}: {near}")
        if scan.positions_rounding > 0.1 * step:
            raise DataError(
                f"{scan.source}: positions are {scan.positions_dtype}, and their steps ({step:.3g} pixels) are about "
                f"as large as its last place there ({scan.positions_rounding:.3g} pixels): store them as float64, or "
                "subtract their mean before they are stored"
            )
        raise DataError(
            f"{scan.source}: scan points are {step:.4g} pixels apart, but a patch has {shape_in_words(shape)}, so no "
            f"two patterns see the same place; check positions_unit (now {unit}) and the pixel size{hint_for(step)}"
        )
    object_bytes = _BYTES_A_PIXEL * float(np.prod(extent_2 + np.array(shape)))
    if object_bytes > (free := free_host_memory()):
        middle_2 = np.median(positions_N2, axis=0)
        furthest = int(np.abs(positions_N2 - middle_2).max(axis=1).argmax())
        raise DataError(
            f"{scan.source}: the scan spans {extent_2[0]:.4g} × {extent_2[1]:.4g} pixels; an object of that size takes "
            f"{bytes_in_words(object_bytes)}, and {bytes_in_words(free)} are free. Pattern "
            f"{scan.number(furthest)} is the furthest out, at ({positions_N2[furthest, 0]:.4g}, "
            f"{positions_N2[furthest, 1]:.4g}): leave out patterns whose position is wrong, "
            f"{scan.lines().leave_out(points=[scan.number(furthest)])}, or check positions_unit (now {unit})"
            f"{hint_for(step)}"
        )


def unsaid_near_field(patterns: Patterns, scan: Scan) -> str | None:
    """Return why these look like near-field patterns, if nobody said that they are; None: they do not."""
    if scan.detector_propagation.patterns_are_images:
        return None
    return near_field(patterns, scan.positions_N2, scan.mask_YX, scan.detector_pixels)


def _surveyed(patterns: Patterns, scan: Scan, stored: Patterns) -> tuple[Scan, Survey]:
    """Return statistics of all patterns, and the scan with a mask that hides the pixels that no pattern measured."""
    num = len(patterns)
    totals_N, sum_YX = np.empty(num), np.zeros(patterns.shape[1:])
    failed_YX = np.zeros(patterns.shape[1:], np.int64)
    low = np.inf
    for piece, patterns_BYX in pieces(patterns):
        if scan.frame_masks:
            unmeasured_BYX = np.isnan(patterns_BYX)
            failed_YX += unmeasured_BYX.sum(axis=0)
            patterns_BYX = np.where(unmeasured_BYX, np.float32(0), patterns_BYX)
        # NaN and infinity show in the total. Each row is summed for itself: the same bits however many there are.
        totals_N[piece] = patterns_BYX.reshape(len(patterns_BYX), -1).sum(axis=1, dtype=np.float64)
        sum_YX += patterns_BYX.sum(axis=0, dtype=np.float64) / num
        low = min(low, float(patterns_BYX.min()))
    if not np.isfinite(totals_N).all():
        bad = np.flatnonzero(~np.isfinite(totals_N)).tolist()
        points = [scan.number(each) for each in bad]
        raise DataError(
            f"{scan.source}: {len(bad)} of {num} patterns hold values that are not finite, the first is pattern "
            f"{points[0]}{_explained(stored, scan) or '; mark bad pixels (prepare.bad_values = [nan, inf, -inf])'}; or "
            f"name them (prepare.mask, prepare.bad_pixels), or leave these patterns out"
            f"{': ' + scan.lines().leave_out(points=points) if len(points) <= _LISTED else ''}"
        )
    if low < 0:
        found = _explained(stored, scan) or (
            "; if a background was subtracted, prepare.background = 0.0 sets them to 0; if a value marks bad pixels, "
            "say so: prepare.bad_values"
        )
        raise DataError(
            f"{scan.source}: intensities go down to {low:.4g}, but counts are not negative{found}; if these are "
            'amplitudes, say values = "amplitude"'
        )
    if totals_N.max() == 0:
        raise DataError(f"{scan.source}: all patterns are zero; check the name of the patterns' array")
    if scan.frame_masks:
        hidden_YX = failed_YX == num
        if scan.mask_YX is not None:
            hidden_YX |= ~scan.mask_YX
        if hidden_YX.all():
            raise DataError(f"{scan.source}: no pixel counts in any pattern; check prepare.bad_values and prepare.mask")
        sum_YX = sum_YX * (num / np.maximum(num - failed_YX, 1))
        some = bool(((failed_YX > 0) & ~hidden_YX).any())
        scan = attrs.evolve(scan, mask_YX=~hidden_YX if hidden_YX.any() else None, frame_masks=some)
    return scan, Survey(totals_N, sum_YX)


def _explained(patterns: Patterns, scan: Scan) -> str:
    """Return what values that counts cannot have look like, where that can be seen."""
    if not isinstance(patterns, PreparedPatterns):
        return ""
    return "".join(f"; {each}" for each in marks(look_at_pixels(patterns, every=True), scan.lines()))
