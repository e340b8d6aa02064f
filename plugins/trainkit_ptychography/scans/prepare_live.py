"""From a detector's frames to patterns: background, bad pixels, and which pixels make up which.

What a pixel of one frame did not measure is NaN from here on; what no frame measured is 0, and hidden by the mask.

Shapes: B = frames, V, U = rows and columns of a frame as it is stored, Y, X = those of a pattern as it is used, M =
probe modes.

A pixel of a pattern has a frequency f, counted in pixels of the pattern from the beam, zero at [0, 0]. It is the sum of
``bin`` × ``bin`` pixels of the frame, centred (as well as whole pixels allow) f·bin pixels from the beam. Cropping and
padding only say for which f that is done; what lies beyond the detector is empty.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import DataError


class Axis(NamedTuple):
    """Which stored pixels make up a pattern along one axis, for a pattern of Y pixels that are sums of b.

    Attributes:
        place_bY: Their indices.
        there_bY: Whether the detector has such a pixel.
    """

    place_bY: NDArray[np.int64]
    there_bY: NDArray[np.bool_]


def axis(stored: int, size: int, binned: int, beam: int | None, flipped: bool) -> Axis:
    """Lay a pattern's pixels over those that are stored.

    Args:
        stored: Number of stored pixels.
        size: Number of pixels of the pattern.
        binned: Stored pixels to a pattern's pixel.
        beam: Where the zero frequency is stored; None: at 0, and negative frequencies at the end, as an FFT has them.
        flipped: Whether frequencies change sign.
    """
    frequency_Y = np.fft.ifftshift(np.arange(size) - size // 2)
    if flipped:
        frequency_Y = frequency_Y[-np.arange(size) % size]
    offset_bY = frequency_Y * binned + np.arange(binned)[:, None] - (binned - 1) // 2
    if beam is None:
        there_bY = (offset_bY >= -(stored // 2)) & (offset_bY < stored - stored // 2)
        return Axis(offset_bY % stored, there_bY)
    place_bY = offset_bY + beam
    return Axis(np.clip(place_bY, 0, stored - 1), (place_bY >= 0) & (place_bY < stored))


@attrs.frozen(eq=False)
class Preparation:
    """Turns frames into patterns.

    Attributes:
        stored_shape: Rows and columns of a frame.
        rows: Which stored rows make up which.
        columns: Which stored columns make up which.
        amplitudes: Whether frames hold square roots of intensities.
        background: Counts to subtract, one number or (V, U); None: nothing is subtracted, or clipped.
        bad_VU: Stored pixels that do not count.
        bad_values: Stored values that mean "not measured".
        bad_above: Stored values above this one mean so too; None: none does.
        beyond_is_dark: Whether what is not on the detector counts, as zero.
    """

    stored_shape: tuple[int, ...]
    rows: Axis
    columns: Axis
    amplitudes: bool = False
    background: NDArray[np.float32] | None = None
    bad_VU: NDArray[np.bool_] | None = None
    bad_values: tuple[float, ...] = ()
    bad_above: float | None = None
    beyond_is_dark: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a pattern."""
        return self.rows.place_bY.shape[1], self.columns.place_bY.shape[1]

    def intensities(self, frames_BVU: NDArray[Any], bad_BVU: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Return intensities on the whole detector; bad pixels are 0, and those of a single frame NaN.

        Args:
            frames_BVU: The frames, as they are stored.
            bad_BVU: Which pixels a mask of each frame marks; None: there is no such mask.
        """
        values_BVU = self.unclipped(frames_BVU, bad_BVU)
        if self.background is not None:
            np.maximum(values_BVU, 0, out=values_BVU)  # NaN stays NaN
        if self.bad_VU is not None:
            values_BVU[:, self.bad_VU] = 0
        return values_BVU

    def __call__(self, frames_BVU: NDArray[Any], bad_BVU: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Return patterns (B, Y, X), zero frequency at [0, 0]."""
        are_used_as_stored = self._keeps_values and bad_BVU is None
        patterns_BYX = self._laid_out(frames_BVU if are_used_as_stored else self.intensities(frames_BVU, bad_BVU))
        if len(self.rows.place_bY) > 1 and (good_YX := self._mask) is not None:
            patterns_BYX[:, ~good_YX] = 0  # what the good pixels of a bad bin saw
        return patterns_BYX

    def unclipped(self, frames_BVU: NDArray[Any], bad_BVU: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Return intensities as `intensities` does, but bad pixels as they are, and negative values too."""
        values_BVU = frames_BVU.astype(np.float32)
        unmeasured_BVU = self.unmeasured(frames_BVU, bad_BVU)
        if unmeasured_BVU is not None:
            values_BVU[np.isnan(values_BVU)] = np.inf  # nobody said that NaN means "not measured": it stays an error
            values_BVU[unmeasured_BVU] = np.nan
        if self.amplitudes:
            np.square(values_BVU, out=values_BVU)
        if self.background is not None:
            values_BVU -= self.background
        return values_BVU

    def used(self) -> NDArray[np.bool_]:
        """Return which stored pixels (V, U) patterns are made of, without those that are bad in all of them."""
        bad_VU = self.bad_VU
        used_VU = np.zeros(self.stored_shape, bool)
        rows, columns = (np.unique(each.place_bY[each.there_bY]) for each in (self.rows, self.columns))
        used_VU[np.ix_(rows, columns)] = True
        return used_VU if bad_VU is None else used_VU & ~bad_VU

    def beam(self) -> tuple[tuple[int, int], bool]:
        """Return the stored pixel of the zero frequency, and whether frames wrap around there (it is at the corner)."""
        middle = (len(self.rows.place_bY) - 1) // 2
        places = [each.place_bY[middle] for each in (self.rows, self.columns)]
        wraps = any(len(each) > 1 and each[-1] > each[0] for each in places)  # frequency −1 is the last
        return (int(places[0][0]), int(places[1][0])), wraps

    @property
    def _keeps_values(self) -> bool:
        """Whether intensities are what is stored."""
        return not (self.amplitudes or self.may_fail) and self.background is None and self.bad_VU is None

    @property
    def may_fail(self) -> bool:
        """Whether a pixel may be not measured in a single frame, by its value."""
        return bool(self.bad_values) or self.bad_above is not None

    def unmeasured(self, frames_BVU: NDArray[Any], bad_BVU: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Return which pixels were not measured in a frame; None: that can be none."""
        marked_BVU = bad_BVU
        for value in self.bad_values:
            these_BVU = equal_to(frames_BVU, value)
            marked_BVU = these_BVU if marked_BVU is None else marked_BVU | these_BVU
        if self.bad_above is not None:
            these_BVU = frames_BVU > self.bad_above
            marked_BVU = these_BVU if marked_BVU is None else marked_BVU | these_BVU
        return marked_BVU

    def mask(self) -> NDArray[np.bool_] | None:
        """Return which pixels of a pattern count (Y, X): those that no bad pixel is part of; None: all."""
        return self._mask

    @cached_property
    def _mask(self) -> NDArray[np.bool_] | None:
        some, whole = (
            getattr(self.rows.there_bY, of_all)(0)[:, None] & getattr(self.columns.there_bY, of_all)(0)
            for of_all in ("any", "all")
        )
        good_YX: NDArray[np.bool_] = whole | ~some if self.beyond_is_dark else whole
        if self.bad_VU is not None:
            good_YX = good_YX & (self._laid_out(self.bad_VU[None].astype(np.float32))[0] == 0)
        return None if good_YX.all() else good_YX

    def _laid_out(self, values_BVU: NDArray[Any]) -> NDArray[np.float32]:
        # Sums are made pixel by pixel in a fixed order: the same bits, however many frames there are.
        total_BYX: NDArray[np.float32] | None = None
        for row_Y, row_there_Y in zip(*self.rows, strict=True):
            for column_X, column_there_X in zip(*self.columns, strict=True):
                part_BYX = rows_and_columns(values_BVU, row_Y, column_X)
                if not (row_there_Y.all() and column_there_X.all()):
                    part_BYX[:, ~(row_there_Y[:, None] & column_there_X)] = 0
                total_BYX = part_BYX if total_BYX is None else np.add(total_BYX, part_BYX, out=total_BYX)
        assert total_BYX is not None  # there is at least one row and one column
        return total_BYX


_MOST_BLOCKS = 4  # a pattern whose zero frequency goes from the middle to the corner has as many


def rows_and_columns(
    values_BVU: NDArray[Any], row_Y: NDArray[np.int64], column_X: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return a copy of some rows and columns (B, Y, X): block by block where they are neighbours, as most are."""
    rows, columns = _runs(row_Y), _runs(column_X)
    if len(rows) * len(columns) > _MOST_BLOCKS:
        values_BS = values_BVU.reshape(len(values_BVU), -1)
        taken_BYX = values_BS.take(row_Y[:, None] * values_BVU.shape[2] + column_X, axis=1)
        return np.asarray(taken_BYX, np.float32)
    chosen_BYX = np.empty((len(values_BVU), len(row_Y), len(column_X)), np.float32)
    for to_Y, from_V in rows:
        for to_X, from_U in columns:
            chosen_BYX[:, to_Y, to_X] = values_BVU[:, from_V, from_U]
    return chosen_BYX


def _runs(places: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """Return runs of ascending neighbours: where they go, and where they come from."""
    ends = [*(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    runs, first = [], 0
    for end in ends:
        start = int(places[first])
        runs.append((slice(first, end), slice(start, start + end - first)))
        first = end
    return runs


def equal_to(values: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Return where an array has a value, as far as its dtype can hold it; NaN is equal to NaN here.

    Example:
        >>> equal_to(np.array([7, 255], np.uint8), 255.0).tolist(), equal_to(np.array([0.1], np.float32), 0.1).tolist()
        ([False, True], [True])
    """
    if values.dtype.kind in "iub":
        if not float(value).is_integer():
            return np.zeros(values.shape, bool)
        return np.asarray(values == int(value))
    if np.isnan(value):
        return np.asarray(np.isnan(values))
    with np.errstate(over="ignore"):
        return np.asarray(values == values.dtype.type(value))


def beam_by_centre_of_mass(mean_VU: NDArray[np.floating], name: str) -> tuple[int, int]:
    """Return the pixel nearest to the centre of mass.

    Raises:
        DataError: There is no light, or NaN.
    """
    total = float(mean_VU.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0):
        raise DataError(
            f"{name}: no centre of mass can be found, since patterns hold no light, or values that are not finite: "
            "give zero_frequency = [row, column], or prepare.mask"
        )
    rows, columns = (
        float((mean_VU.sum(axis=1 - each, dtype=np.float64) * np.arange(mean_VU.shape[each])).sum()) / total
        for each in (0, 1)
    )
    return round(rows), round(columns)


def prepared_probe(
    modes_MVU: NDArray[np.complexfloating],
    shape_YX: tuple[int, int],
    binned: int,
    flips: tuple[bool, bool],
    images: bool = False,
) -> NDArray[np.complexfloating]:
    """Return a probe that fits patterns which were flipped, cropped, binned and padded.

    Cropped patterns mean larger object pixels, so the probe's spectrum is cropped too; padded ones mean smaller pixels,
    so it is padded. Binned patterns mean a smaller field of view, so the probe's array is cropped. Where patterns are
    images it is the other way round: its array is cropped and padded as they are, and binning crops its spectrum.

    Args:
        modes_MVU: Centred at pixel (V//2, U//2).
        shape_YX: Rows and columns of a pattern.
        binned: Stored pixels to a pattern's pixel.
        flips: Whether rows, and columns, are turned around.
        images: Whether pixels of patterns stand for places, not for frequencies.
    """
    modes = modes_MVU
    if images:
        for place, (size, flipped) in enumerate(zip(shape_YX, flips, strict=True)):
            along = place + 1
            centred = np.fft.ifftshift(modes, axes=along)
            if size * binned != modes.shape[along] or flipped:
                centred = _chosen(centred, size * binned, along, flipped)
            if binned > 1:
                centred = np.fft.ifft(_chosen(np.fft.fft(centred, axis=along), size, along, False), axis=along)
            modes = np.fft.fftshift(centred, axes=along)
        return modes.astype(modes_MVU.dtype)
    for place, (size, flipped) in enumerate(zip(shape_YX, flips, strict=True)):
        along = place + 1
        if size * binned != modes.shape[along] or flipped:
            spectrum = np.fft.fft(np.fft.ifftshift(modes, axes=along), axis=along)
            chosen = _chosen(spectrum, size * binned, along, flipped)
            modes = np.fft.fftshift(np.fft.ifft(chosen, axis=along), axes=along)
        modes = np.fft.fftshift(_chosen(np.fft.ifftshift(modes, axes=along), size, along, False), axes=along)
    return modes.astype(modes_MVU.dtype)


def _chosen(values: NDArray[Any], size: int, along: int, flipped: bool) -> NDArray[Any]:
    """Crop or pad an axis that has its zero at 0 and negative numbers at the end."""
    (place,), (there,) = axis(values.shape[along], size, 1, None, flipped)
    taken = np.take(values, place, axis=along)
    kept: NDArray[Any] = taken * there.reshape([-1 if each == along else 1 for each in range(taken.ndim)])
    return kept
