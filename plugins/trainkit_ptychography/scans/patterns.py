"""Patterns that need not be in memory: an array of them, or a file that is read piece by piece.

Shapes: N = scan points, B = points that are asked for, Y, X = rows and columns of a pattern as it is used, V, U = rows
and columns of a frame as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.prepare_live import Preparation

SHARE_OF_MEMORY = 0.6
"""The part of the free memory that patterns take at most if the recipe does not say where they are to be: object, probe
and batches need memory too."""

_OF_FRAMES = ("nyx", "rcyx")  # axes of arrays in which each frame is one stretch

_PIECE_BYTES = 2**22  # of float32 that are worked on at a time


class Patterns(Protocol):
    """Patterns (N, Y, X) in float32, zero frequency at [0, 0]; a NumPy array is one.

    Where `Scan.frame_masks` says so, a pixel that was not measured in a pattern is NaN.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, Y, X)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, points: Any, /) -> NDArray[np.float32]:
        """Return the patterns of a slice (with step 1), or of an array of points."""
        ...


class Stored(Protocol):
    """An array in a file, which is read when it is indexed; a NumPy array is one too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of its values."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return a part, by a tuple of numbers and slices."""
        ...


@runtime_checkable
class InStretches(Stored, Protocol):
    """An array that lies in one stretch of a file, in C order."""

    def stretches(self, numbers_B: NDArray[np.int64], axes: int) -> NDArray[Any]:
        """Return what lies behind the first ``axes`` axes at places (B, …), counted as if these axes were one."""
        ...


def pieces(patterns: Patterns) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield all patterns, a manageable number at a time."""
    stored = patterns.frame_shape if isinstance(patterns, PreparedPatterns) else ()  # larger than what is binned
    num = max(1, _PIECE_BYTES // (4 * max(prod(stored), prod(patterns.shape[1:]))))
    for start in range(0, len(patterns), num):
        piece = slice(start, min(start + num, len(patterns)))
        yield piece, patterns[piece]


class Frames:
    """Frames (N, V, U) as they are stored, whatever the order of the array's axes.

    Args:
        stored: The array.
        axes: A letter for each axis: n, or r and c, for the scan; y and x for the detector. None: the last two are the
            detector's.
        name: What messages call it.

    Raises:
        DataError: It is not real, or has another number of axes.
    """

    def __init__(self, stored: Stored, axes: str | None, name: str) -> None:
        shape = stored.shape
        if stored.dtype.kind not in "iufb" or len(shape) < 3:
            raise DataError(
                f"{name} must be real, (points, rows, columns) or (scan rows, scan columns, rows, columns); it is "
                f"{stored.dtype} of shape {shape}"
            )
        self._leading = 0
        while len(shape) - self._leading > (len(axes) if axes else 3) and shape[self._leading] == 1:
            self._leading += 1
        shape = shape[self._leading :]
        if axes is None and len(shape) > 4:
            raise DataError(f"{name} has the shape {shape}: more than two axes before the detector's")
        axes = axes or ("nyx" if len(shape) == 3 else "rcyx")
        if len(axes) != len(shape):
            raise DataError(f'{name} has the shape {shape}, so pattern_axes = "{axes}" must have {len(shape)} letters')
        size = dict(zip(axes, shape, strict=True))
        self._stored, self._axes = stored, axes
        # Looked at once: to look whether an object has a protocol's methods takes longer than to read ten frames.
        self._stretches = stored.stretches if axes in _OF_FRAMES and isinstance(stored, InStretches) else None
        self.dtype = stored.dtype
        self.scan_shape: tuple[int, ...] = (size["n"],) if "n" in size else (size["r"], size["c"])
        self.shape = (prod(self.scan_shape), size["y"], size["x"])

    def __getitem__(self, points: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return frames (B, V, U), of any real dtype."""
        if isinstance(points, slice):
            return self._joined(self._run(*points.indices(len(self))[:2]))
        if self._stretches is not None:
            if len(points) and not 0 <= points.min() <= points.max() < len(self):
                raise IndexError(f"frames {points.min()} … {points.max()} of {len(self)}")
            return self._stretches(points, self._leading + len(self._axes) - 2)
        # Neighbours are read in one go, and each frame once.
        unique, place_B = np.unique(points, return_inverse=True)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1)
        frames = self._joined(part for run in runs if len(run) for part in self._run(run[0], run[-1] + 1))
        return frames if np.array_equal(place_B, np.arange(len(unique))) else frames[place_B]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of frames in each array that they are stored in: here one."""
        return self.shape[:1]

    def _joined(self, parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
        found = list(parts)
        return found[0] if len(found) == 1 else np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *found])

    def _run(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Yield frames start … stop − 1."""
        if len(self.scan_shape) == 1:
            yield self._read({"n": slice(start, stop)}, "nyx")
            return
        width = self.scan_shape[1]
        while start < stop:
            row, column = divmod(start, width)
            if column == 0 and stop - start >= width:
                rows = (stop - start) // width
                yield self._read({"r": slice(row, row + rows)}, "rcyx").reshape(-1, *self.shape[1:])
                start += rows * width
            else:
                num = min(stop - start, width - column)
                yield self._read({"r": slice(row, row + 1), "c": slice(column, column + num)}, "rcyx")[0]
                start += num

    def _read(self, chosen: dict[str, slice], order: str) -> NDArray[Any]:
        key = (0,) * self._leading + tuple(chosen.get(letter, slice(None)) for letter in self._axes)
        part = np.asarray(self._stored[key])
        return part.transpose([self._axes.index(letter) for letter in order])


class JoinedFrames:
    """Frames of several arrays, one after the other.

    Args:
        parts: The arrays; one or more.
        names: What messages call them.

    Raises:
        DataError: Their frames differ in shape.
    """

    def __init__(self, parts: Sequence[Frames], names: Sequence[str]) -> None:
        self._parts = parts
        for part, name in zip(parts, names, strict=True):
            if part.shape[1:] != parts[0].shape[1:]:
                raise DataError(
                    f"{name} has frames of {part.shape[1]} × {part.shape[2]} pixels, but {names[0]}, to which it is "
                    f"joined, has {parts[0].shape[1]} × {parts[0].shape[2]}"
                )
        self.dtype: np.dtype[Any] = np.result_type(*(part.dtype for part in parts))
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])
        widths = {part.scan_shape[1:] for part in parts}
        (width,) = widths if len(widths) == 1 else ((),)
        self.scan_shape: tuple[int, ...] = (sum(part.scan_shape[0] for part in parts), *width)
        if prod(self.scan_shape) != self.shape[0]:
            self.scan_shape = self.shape[:1]

    def part(self, points_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of the arrays frames are in, from 0."""
        return np.searchsorted(self._ends, points_B, side="right")

    def __getitem__(self, points: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return frames (B, V, U), of any real dtype."""
        points_B = np.arange(*points.indices(len(self))[:2]) if isinstance(points, slice) else np.asarray(points)
        found_BVU = np.empty((len(points_B), *self.shape[1:]), self.dtype)
        part_B = self.part(points_B)
        for number, part in enumerate(self._parts):
            of_part_B = part_B == number
            if of_part_B.any():
                found_BVU[of_part_B] = part[points_B[of_part_B] - (self._ends[number] - len(part))]
        return found_BVU

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of frames in each array that they are stored in."""
        return tuple(len(part) for part in self._parts)


class Exposures:
    """The frames of a file that are used, each with the pixels that do not count in it.

    Args:
        frames: All frames of the file.
        used_N: The numbers of those that are used; None: all.
        masks: A mask for each frame of the file; None: there are none.
        marks_good: Whether the masks are non-zero at good pixels.
        ignored_bits: Bits of the masks that do not count.
    """

    def __init__(
        self,
        frames: Frames | JoinedFrames,
        used_N: NDArray[np.int64] | None = None,
        masks: Frames | JoinedFrames | None = None,
        marks_good: bool = False,
        ignored_bits: int = 0,
    ) -> None:
        self._frames, self._used_N, self._masks = frames, used_N, masks
        self._marks_good, self._ignored_bits = marks_good, ignored_bits
        self.scan_shape = frames.scan_shape if used_N is None else (len(used_N),)
        self.frame_shape, self.dtype = frames.shape[1:], frames.dtype

    @property
    def has_masks(self) -> bool:
        """Whether each frame has a mask of its own."""
        return self._masks is not None

    def __len__(self) -> int:
        return len(self._frames) if self._used_N is None else len(self._used_N)

    def __getitem__(self, points: slice | NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return frames (B, V, U) as they are stored, and which of their pixels a mask marks as bad."""
        stored = points if self._used_N is None else self._used_N[points]
        frames_BVU = self._frames[stored]
        if self._masks is None:
            return frames_BVU, None
        marks_BVU = self._masks[stored]
        if self._ignored_bits:
            marks_BVU = marks_BVU.astype(np.int64) & ~self._ignored_bits
        marked_BVU = marks_BVU != 0
        return frames_BVU, ~marked_BVU if self._marks_good else marked_BVU


class PreparedPatterns:
    """`Patterns` made from stored frames: they are read, and brought to our convention, when they are indexed.

    Args:
        exposures: The frames.
        preparation: What is done to the frames.
        in_file: Whether they are read anew each time; False: they are in memory already.
        reading: Makes a context for reading, which turns what a damaged file raises into a DataError.
    """

    def __init__(
        self,
        exposures: Exposures,
        preparation: Preparation,
        in_file: bool,
        reading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.exposures, self.preparation, self._reading = exposures, preparation, reading
        self.in_file = in_file
        self.scan_shape, self.frame_shape = exposures.scan_shape, exposures.frame_shape
        self.shape: tuple[int, ...] = (len(exposures), *preparation.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, points: slice | NDArray[np.int64], /) -> NDArray[np.float32]:
        return self.preparation(*self.stored(points))

    def stored(self, points: slice | NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return frames (B, V, U) as they are in the file, and which of their pixels a mask marks as bad."""
        with self._reading():
            return self.exposures[points]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of them."""
        whole_NYX = np.empty(self.shape, np.float32)
        for piece, patterns_BYX in pieces(self):
            whole_NYX[piece] = patterns_BYX
        return whole_NYX if dtype is None else whole_NYX.astype(dtype, copy=False)
