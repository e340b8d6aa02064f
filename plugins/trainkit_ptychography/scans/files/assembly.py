"""Makes a `Recording` from the settings and a file's named arrays.

Shapes: N = scan points, V, U = rows and columns of a frame as it is stored, M = probe modes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.physics.optics import electron_wavelength, photon_wavelength
from trainkit_ptychography.scans.files.arrays import as_points, as_probe
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.patterns import Frames, PreparedPatterns, Stored
from trainkit_ptychography.scans.positions import ANGSTROM, oriented, raster
from trainkit_ptychography.scans.prepare_live import Axis, Preparation, axis, beam_by_centre_of_mass, prepared_probe
from trainkit_ptychography.scans.scan import Recording, Scan, Truth

_LOOKED_AT = 512  # patterns, evenly spread, whose mean shows where the beam is


class ArrayFile(Protocol):
    """A file that holds arrays of numbers by name.

    Attributes:
        source: What messages call it.
        random_access: Whether `stored` gives arrays that are read where they are indexed.
    """

    source: str
    random_access: bool

    def reading(self) -> AbstractContextManager[None]:
        """Make a context that turns what a damaged file raises into a DataError."""
        ...

    def stored(self, name: str) -> Stored:
        """Return an array, to be read in parts.

        Raises:
            DataError: There is none of this name (says which there are), or it is not safe to read.
        """
        ...

    def array(self, name: str) -> NDArray[Any]:
        """Return a whole array. Raises as `stored` does."""
        ...


class ReaderHints(NamedTuple):
    """What a file says itself, so that settings need not name it.

    Attributes:
        points_N2: The positions, in the form of an array of positions.
        bad_VU: Which pixels are bad.
    """

    points_N2: NDArray[np.float64] | None = None
    bad_VU: NDArray[np.bool_] | None = None


def read_scan(settings: FileDiffraction, file: ArrayFile, hints: ReaderHints | None = None) -> Recording:
    """Read what the settings name; patterns are read when they are indexed.

    Raises:
        DataError: Something is missing, unsafe, or not of the shape that it must have.
    """
    with file.reading():
        return _read_scan(settings, file, hints or ReaderHints())


def _read_scan(settings: FileDiffraction, file: ArrayFile, hints: ReaderHints) -> Recording:
    assert settings.patterns is not None  # each reader names them by now
    source, prepare = file.source, settings.prepare
    frames = Frames(file.stored(settings.patterns), settings.pattern_axes, f"{source}: {settings.patterns}")
    preparation = _preparation(settings, file, frames, hints.bad_VU)
    scale, sizes, wavelength = _geometry(settings, frames.shape[1:], preparation.shape, source)

    def in_pixels(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
        swapped = settings.positions_order == "column_row"
        turned_N2 = oriented(points_N2, swapped, settings.positions_flip, settings.positions_rotation_deg)
        return turned_N2 * scale

    def points(names: str | tuple[str, str]) -> NDArray[np.float64]:
        if isinstance(names, str):
            return as_points(file.array(names), f"{source}: {names}")
        parts = [file.array(name).ravel() for name in names]
        if len(parts[0]) != len(parts[1]):
            raise DataError(f"{source}: {names[0]} has {len(parts[0])} values, {names[1]} has {len(parts[1])}")
        return np.stack(parts, axis=1).astype(np.float64)

    if hints.points_N2 is not None:
        positions_N2 = hints.points_N2
    elif settings.raster is not None:
        positions_N2 = _raster(settings, frames, source)
    else:
        assert settings.positions is not None  # as above
        positions_N2 = points(settings.positions)

    probe_MYX = None
    if settings.probe is not None:
        probe_MYX = as_probe(file.array(settings.probe), f"{source}: {settings.probe}")
        if probe_MYX.shape[1:] == frames.shape[1:]:
            flips = ("rows" in settings.pattern_flip, "columns" in settings.pattern_flip)
            probe_MYX = prepared_probe(probe_MYX, preparation.shape, prepare.bin, flips)
    truth = None
    if settings.truth_phase is not None and settings.truth_positions is not None:
        phase_KL = file.array(settings.truth_phase)
        if phase_KL.ndim != 2:
            raise DataError(f"{source}: {settings.truth_phase} must be 2-D, it has the shape {phase_KL.shape}")
        truth = Truth(phase_KL=phase_KL, positions_N2=in_pixels(points(settings.truth_positions)))

    scan = Scan(
        positions_N2=in_pixels(positions_N2),
        source=source,
        pixel_size_angstrom=sizes,
        wavelength_angstrom=wavelength,
        semiangle_mrad=settings.semiangle_mrad,
        defocus_angstrom=settings.defocus_angstrom,
        probe_MYX=probe_MYX,
        truth=truth,
        mask_YX=preparation.mask(),
        positions_unit=settings.positions_unit,
    )
    return Recording(PreparedPatterns(frames, preparation, file.random_access, file.reading), scan)


def _raster(settings: FileDiffraction, frames: Frames, source: str) -> NDArray[np.float64]:
    given = settings.raster
    assert given is not None  # only asked for then
    shape = given.shape
    if shape is None:
        if len(frames.scan_shape) != 2:
            raise DataError(
                f"{source}: {settings.patterns} has one scan axis ({frames.shape[0]} points), so the raster needs its "
                "shape = [slow, fast]"
            )
        shape = (frames.scan_shape[0], frames.scan_shape[1])
    if shape[0] * shape[1] != frames.shape[0]:
        raise DataError(
            f"{source}: a raster of {shape[0]} × {shape[1]} has {shape[0] * shape[1]} points, but there are "
            f"{frames.shape[0]} patterns; change raster.shape"
        )
    step = given.step if isinstance(given.step, tuple) else (given.step, given.step)
    return raster(shape, step, given.snake)


# ---- the detector ---------------------------------------------------------------------------------------------------


def _preparation(
    settings: FileDiffraction, file: ArrayFile, frames: Frames, hinted_bad_VU: NDArray[np.bool_] | None
) -> Preparation:
    prepare, frame = settings.prepare, frames.shape[1:]
    background: NDArray[np.float32] | None = None
    if isinstance(prepare.background, str):
        background = _of_frame(file.array(prepare.background), frame, prepare.background, "background", file.source)
        background = background.astype(np.float32)
    elif prepare.background is not None:
        background = np.float32(prepare.background) * np.ones((), np.float32)
    whole = Preparation(
        axis(frame[0], frame[0], 1, 0, False),
        axis(frame[1], frame[1], 1, 0, False),
        amplitudes=settings.values == "amplitude",
        background=background,
        bad_VU=_bad_pixels(settings, file, frame, hinted_bad_VU),
        beyond_is_dark=prepare.beyond_detector == "dark",
    )
    beam = _beam(settings, frames, whole, file.source)
    shape = [_size(settings, which, frame[which]) for which in (0, 1)]
    rows, columns = (
        axis(frame[which], shape[which], prepare.bin, beam[which], name in settings.pattern_flip)
        for which, name in ((0, "rows"), (1, "columns"))
    )
    kept = [
        _cropped(each, _kept(settings, which, frame[which]), shape[which]) for which, each in enumerate((rows, columns))
    ]
    return Preparation(kept[0], kept[1], whole.amplitudes, background, whole.bad_VU, whole.beyond_is_dark)


def _kept(settings: FileDiffraction, which: int, stored: int) -> int:
    """Return how many pixels of a pattern come from the detector."""
    crop = settings.prepare.crop
    return (stored if crop is None else min(crop[which], stored)) // settings.prepare.bin


def _size(settings: FileDiffraction, which: int, stored: int) -> int:
    """Return how many pixels a pattern has along an axis."""
    kept, pad = _kept(settings, which, stored), settings.prepare.pad
    if kept < 1:
        raise DataError(f"{settings.path}: bin = {settings.prepare.bin} leaves nothing of {stored} pixels")
    if pad is None:
        return kept
    if pad[which] < kept:
        raise DataError(f"{settings.path}: prepare.pad = {list(pad)} is smaller than the {kept} pixels that are kept")
    return pad[which]


def _cropped(laid: Axis, kept: int, size: int) -> Axis:
    """Take out what a crop leaves out, where a pattern is then padded again."""
    if kept == size:
        return laid
    frequency_Y = np.fft.ifftshift(np.arange(size) - size // 2)
    inside_Y = (frequency_Y >= -(kept // 2)) & (frequency_Y < kept - kept // 2)
    return Axis(laid.place_bY, laid.there_bY & inside_Y)


def _bad_pixels(
    settings: FileDiffraction, file: ArrayFile, frame: tuple[int, ...], hinted_VU: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    prepare, source = settings.prepare, file.source
    bad_VU = np.zeros(frame, bool)
    if prepare.mask is not None:
        marked_VU = _of_frame(file.array(prepare.mask), frame, prepare.mask, "mask", source) != 0
        bad_VU |= marked_VU if prepare.mask_marks == "bad" else ~marked_VU
    elif hinted_VU is not None:
        bad_VU |= _of_frame(hinted_VU, frame, "its mask", "mask", source)
    places = [(f"bad_pixels {list(each)}", each) for each in prepare.bad_pixels]
    places += [(f"bad_rows {row}", (row, 0)) for row in prepare.bad_rows]
    places += [(f"bad_columns {column}", (0, column)) for column in prepare.bad_columns]
    for name, (row, column) in places:
        if row >= frame[0] or column >= frame[1]:
            raise DataError(f"{source}: prepare.{name} is not on the detector of {frame[0]} × {frame[1]} pixels")
    for row, column in prepare.bad_pixels:
        bad_VU[row, column] = True
    bad_VU[list(prepare.bad_rows)] = True
    bad_VU[:, list(prepare.bad_columns)] = True
    if bad_VU.all():
        raise DataError(f'{source}: all pixels are masked; does the mask mark the good ones (mask_marks = "good")?')
    return bad_VU if bad_VU.any() else None


def _of_frame(array: NDArray[Any], frame: tuple[int, ...], name: str, key: str, source: str) -> NDArray[Any]:
    """Return an array that must have a frame's shape, without leading axes of length 1."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.shape != frame:
        raise DataError(
            f"{source}: {name} (prepare.{key}) has the shape {array.shape}, but a pattern has {frame[0]} × {frame[1]} "
            "pixels"
        )
    return array


def _beam(settings: FileDiffraction, frames: Frames, whole: Preparation, source: str) -> tuple[int | None, int | None]:
    """Return where the zero frequency is in a frame; None: at the corner."""
    said, frame = settings.zero_frequency, frames.shape[1:]
    if said == "corner":
        return None, None
    if said == "centre":
        return frame[0] // 2, frame[1] // 2
    if said == "centre_of_mass":
        num = min(_LOOKED_AT, len(frames))
        total_VU = np.zeros(frame)
        for points_B in np.array_split(np.unique(np.linspace(0, len(frames) - 1, num).astype(np.int64)), -(-num // 16)):
            total_VU += whole.intensities(frames[points_B]).sum(axis=0, dtype=np.float64)
        return beam_by_centre_of_mass(total_VU, f"{source}: {settings.patterns}")
    row, column = round(said[0]), round(said[1])
    if not (0 <= row < frame[0] and 0 <= column < frame[1]):
        raise DataError(
            f"{source}: zero_frequency = [{said[0]:g}, {said[1]:g}] is not on the detector of {frame[0]} × "
            f"{frame[1]} pixels"
        )
    return row, column


# ---- sizes ----------------------------------------------------------------------------------------------------------


def _geometry(
    settings: FileDiffraction, frame: tuple[int, ...], shape: tuple[int, int], source: str
) -> tuple[NDArray[np.float64], float | None, float | None]:
    """Return pixels to a unit of the positions (row, column), the object pixel's size in Å, and the wavelength."""
    wavelength = settings.wavelength_angstrom
    if settings.energy_kev is not None:
        of_energy: Callable[[float], float] = (
            electron_wavelength if settings.radiation == "electrons" else photon_wavelength
        )
        wavelength = of_energy(settings.energy_kev)
    # Object pixels along each axis: 1 / (detector pixels · dk), where binning makes dk larger and their number smaller.
    finer_2 = np.array([shape[which] * settings.prepare.bin / frame[which] for which in (0, 1)])
    sizes_2: NDArray[np.float64] | None = None
    dk = settings.dk_per_angstrom
    if settings.detector_distance_m is not None and settings.detector_pixel_um is not None and wavelength is not None:
        dk = settings.detector_pixel_um * 1e4 / (wavelength * settings.detector_distance_m * 1e10)
    if settings.pixel_size_angstrom is not None:
        sizes_2 = settings.pixel_size_angstrom / finer_2
    elif dk is not None:
        sizes_2 = 1.0 / (np.array(frame) * dk * finer_2)
    if sizes_2 is not None and abs(sizes_2[0] / sizes_2[1] - 1) > 1e-6:
        raise DataError(
            f"{source}: patterns of {shape[0]} × {shape[1]} pixels have object pixels of {sizes_2[0]:.4g} × "
            f"{sizes_2[1]:.4g} Å, which must be square: set prepare.pad = [{max(shape)}, {max(shape)}], or prepare.crop"
        )
    size = None if sizes_2 is None else float(sizes_2[0])
    if settings.positions_unit == "pixels":
        return finer_2, size, wavelength
    if size is None:
        raise DataError(
            f"{source}: positions in {settings.positions_unit} need the size of an object pixel: set "
            "data.pixel_size_angstrom, or data.dk_per_angstrom, or the energy, data.detector_pixel_um and "
            'data.detector_distance_m; or positions_unit = "pixels"'
        )
    return np.full(2, ANGSTROM[settings.positions_unit] / size), size, wavelength
