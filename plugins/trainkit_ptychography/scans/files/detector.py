"""How patterns are made of a detector's frames, as the settings say: bad pixels, background, beam, crop and size.

Shapes: V, U = rows and columns of a frame as it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.files.array_file import ArrayFile, ReaderHints, frames_of, in_words, several
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.patterns import Exposures, Frames, JoinedFrames
from trainkit_ptychography.scans.prepare_live import Axis, Preparation, axis, beam_by_centre_of_mass

_LOOKED_AT = 512  # patterns, evenly spread, whose mean shows where the beam is


def preparation_of(
    settings: FileDiffraction, file: ArrayFile, exposures: Exposures, hinted_bad_VU: NDArray[np.bool_] | None
) -> Preparation:
    """Return what makes patterns of frames.

    Args:
        settings: The settings.
        file: The file with the background and the mask that they name.
        exposures: The frames that are used.
        hinted_bad_VU: The bad pixels that the file says itself, used if the settings name no mask.

    Raises:
        DataError: An array does not fit the frames, or nothing is left of them.
    """
    prepare, frame = settings.prepare, exposures.frame_shape
    background: NDArray[np.float32] | None = None
    if isinstance(prepare.background, str):
        background = _of_frame(file.array(prepare.background), frame, prepare.background, "background", file.source)
        background = background.astype(np.float32)
    elif prepare.background is not None:
        background = np.float32(prepare.background) * np.ones((), np.float32)
    whole = Preparation(
        frame,
        axis(frame[0], frame[0], 1, 0, False),
        axis(frame[1], frame[1], 1, 0, False),
        amplitudes=settings.values == "amplitude",
        background=background,
        bad_VU=_bad_pixels(settings, file, frame, hinted_bad_VU),
        bad_values=prepare.bad_values,
        bad_above=prepare.bad_above,
        beyond_is_dark=prepare.beyond_detector == "dark",
    )
    _check_background(background, whole, prepare.background, file.source)
    beam = _beam(settings, exposures, whole, file.source)
    shape = [_size(settings, which, frame[which]) for which in (0, 1)]
    rows, columns = (
        axis(frame[which], shape[which], prepare.bin, beam[which], name in settings.pattern_flip)
        for which, name in ((0, "rows"), (1, "columns"))
    )
    kept = [
        _cropped(each, _kept(settings, which, frame[which]), shape[which]) for which, each in enumerate((rows, columns))
    ]
    return attrs.evolve(whole, rows=kept[0], columns=kept[1])


def _check_background(
    background: NDArray[np.float32] | None, whole: Preparation, name: float | str | None, source: str
) -> None:
    """Check that a background is a number wherever pixels count: they would be lost, or spoil their pattern."""
    if background is None or np.isfinite(background).all():
        return
    lost_VU = np.broadcast_to(~np.isfinite(background), whole.stored_shape) & whole.used()
    if lost_VU.any():
        row, column = np.argwhere(lost_VU)[0].tolist()
        raise DataError(
            f"{source}: {name} (prepare.background) is not finite at {int(lost_VU.sum())} pixels that count, the first "
            f"is [{row}, {column}]: mark these pixels as bad (prepare.mask, prepare.bad_pixels), or give a number there"
        )


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
    masks = several(prepare.mask or ())
    if len(masks) == 1 and _is_single(file.stored(masks[0]).shape):
        marked_VU = _of_frame(file.array(masks[0]), frame, masks[0], "mask", source) != 0
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


def frame_masks(
    settings: FileDiffraction, files: Sequence[ArrayFile], frames: Frames | JoinedFrames, hints: ReaderHints
) -> Frames | JoinedFrames | None:
    """Return the masks of single patterns; None: there is one for all, or none."""
    names = several(settings.prepare.mask or hints.mask or ())
    if not names or (len(names) == 1 and _is_single(files[0].stored(names[0]).shape)):
        return None
    masks = frames_of(names, files, settings.pattern_axes)
    if masks.shape[1:] != frames.shape[1:]:
        raise DataError(
            f"{files[0].source}: {in_words(names)} (prepare.mask) holds masks of {masks.shape[1]} × {masks.shape[2]} "
            f"pixels, but a pattern has {frames.shape[1]} × {frames.shape[2]}; there must be one (rows, columns) for "
            "all patterns, or one for each"
        )
    return masks


def _is_single(shape: tuple[int, ...]) -> bool:
    return sum(size > 1 for size in shape[:-2]) == 0


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


def _beam(
    settings: FileDiffraction, exposures: Exposures, whole: Preparation, source: str
) -> tuple[int | None, int | None]:
    """Return where the zero frequency is in a frame; None: at the corner."""
    said, frame = settings.zero_frequency, exposures.frame_shape
    if said == "corner":
        return None, None
    if said == "centre":
        return frame[0] // 2, frame[1] // 2
    if said == "centre_of_mass":
        num = min(_LOOKED_AT, len(exposures))
        total_VU = np.zeros(frame)
        points = np.unique(np.linspace(0, len(exposures) - 1, num).astype(np.int64))
        for points_B in np.array_split(points, -(-num // 16)):
            intensities_BVU = whole.intensities(*exposures[points_B])
            if whole.may_fail or exposures.has_masks:
                intensities_BVU = np.nan_to_num(intensities_BVU, copy=False, nan=0.0, posinf=np.inf)
            total_VU += intensities_BVU.sum(axis=0, dtype=np.float64)
        return beam_by_centre_of_mass(total_VU, f"{source}: {in_words(settings.patterns)}")
    row, column = round(said[0]), round(said[1])
    if not (0 <= row < frame[0] and 0 <= column < frame[1]):
        raise DataError(
            f"{source}: zero_frequency = [{said[0]:g}, {said[1]:g}] is not on the detector of {frame[0]} × "
            f"{frame[1]} pixels"
        )
    return row, column
