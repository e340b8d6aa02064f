"""What is in the patterns of a scan, for planners: where the beam is, counts, and pixels that did not measure.

Patterns are looked into as soon as they can be opened, although the recipe may lack much that a run needs.

Shapes: B = patterns that are looked at, Y, X = rows and columns of a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, Problem
from trainkit_ptychography.scans.few_counts import Counts, counts_in
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.pixels import doubts_of_pixels, look_at_pixels
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.sampling import neighbour_distances
from trainkit_ptychography.scans.scan import Recording, Scan

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction

_PATTERNS = 16  # to find the beam
_BRIGHTER = 1.5

Beam = Literal["centre", "corner"]


@attrs.frozen
class ScanContents:
    """What is in a scan.

    Attributes:
        num_patterns: Number of patterns.
        shape: Rows and columns of a pattern, as it is trained on.
        counts: What the patterns hold if they are counts; None: they are not.
        beam: Around where in the stored patterns the light is; None: around neither, or it is told.
        pixels: What is wrong with pixels that did not measure, a sentence each. They are looked for only where it is
            known where the beam is.
        prepare: The settings of ``data.prepare`` with which these do not count.
        thickness_angstrom: Thickness of the specimen; None: the file does not say it.
        wavelength_angstrom: The wavelength; None: it is not known.
        depth_resolution_angstrom: Wavelength over the square of the half opening angle: the depth in which the beam
            stays as it is; None: one of the two is not known.
        step_angstrom: Median distance of scan points that are neighbours; None: it is not known in Å.
    """

    num_patterns: int
    shape: tuple[int, int]
    counts: Counts | None
    beam: Beam | None = None
    pixels: tuple[str, ...] = ()
    prepare: Mapping[str, Any] = attrs.Factory(dict)
    thickness_angstrom: float | None = None
    wavelength_angstrom: float | None = None
    depth_resolution_angstrom: float | None = None
    step_angstrom: float | None = None


def contents_of(
    told: FileDiffraction, beam_is_told: bool, thickness_angstrom: float | None = None
) -> Iterator[Problem | ScanContents]:
    """Yield what is in a scan, or why it cannot be looked into.

    Args:
        told: The settings, of which some that a run needs may be missing.
        beam_is_told: Whether ``zero_frequency`` is among those that are given.
        thickness_angstrom: Thickness of the specimen, if the file says it.
    """
    if not told.knows_axes():
        return  # it is not known what a pattern is
    data: Any = told.with_points()
    beam_is_told = beam_is_told or data.file_says_geometry() or data.detector_propagation.patterns_are_images
    try:
        recording, beam = data.read(), None
        if not beam_is_told and (beam := _beam(recording)) == "corner":
            data = attrs.evolve(data, zero_frequency=beam)
            recording = data.read()
        patterns, pixels, prepare = recording.intensities_NYX, list[str](), dict[str, Any]()
        if isinstance(patterns, PreparedPatterns) and (beam_is_told or beam is not None):
            lines = recording.scan.lines()
            pixels = list(doubts_of_pixels(look_at_pixels(patterns, every=False), lines))
            if pixels:
                prepare = lines.changed_preparation
                recording = attrs.evolve(data, prepare=Prepare(**prepare)).read()
        counts = counts_in(recording)
    except DataError as error:
        yield Problem(f"the patterns could not be looked into, so the loss is a guess: {error}", severity="warning")
        return
    shape, scan = recording.intensities_NYX.shape, recording.scan
    resolved = None
    if scan.wavelength_angstrom is not None and scan.semiangle_mrad is not None:
        resolved = scan.wavelength_angstrom / (1e-3 * scan.semiangle_mrad) ** 2
    yield ScanContents(
        num_patterns=shape[0],
        shape=(shape[1], shape[2]),
        counts=counts,
        beam=beam,
        pixels=tuple(each.split(" prepare = ")[0] for each in pixels),
        prepare=prepare,
        thickness_angstrom=thickness_angstrom,
        wavelength_angstrom=scan.wavelength_angstrom,
        depth_resolution_angstrom=resolved,
        step_angstrom=_step_angstrom(scan),
    )


def _step_angstrom(scan: Scan) -> float | None:
    step = float(np.median(neighbour_distances(scan.positions_N2)))
    known = scan.pixel_size_angstrom is not None and np.isfinite(step) and step > 0
    return step * (scan.pixel_size_angstrom or 0.0) if known else None


def _beam(recording: Recording) -> Beam | None:
    """Return whether a few patterns are brightest where their zero frequency should be, or half a detector away.

    Args:
        recording: The scan, opened as if the beam were at the centre.
    """
    patterns = recording.intensities_NYX
    points = np.unique(np.linspace(0, len(patterns) - 1, _PATTERNS).astype(int))
    mean_YX: NDArray[np.float64] = np.nan_to_num(np.abs(np.asarray(patterns[points], np.float64))).mean(axis=0)
    near_YX = np.ones(mean_YX.shape, bool)
    for axis, n in enumerate(mean_YX.shape):
        inner = np.abs(np.fft.fftfreq(n)) < 0.25
        near_YX &= inner[:, None] if axis == 0 else inner[None, :]
    centre, corner = (mean_YX[mask].mean() for mask in (near_YX, np.fft.fftshift(near_YX)))
    if not max(centre, corner) > _BRIGHTER * min(centre, corner):
        return None
    return "centre" if centre > corner else "corner"
