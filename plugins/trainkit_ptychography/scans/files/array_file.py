"""What `read_scan` asks of a file, whatever its format: arrays of numbers by name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.scans.patterns import Frames, JoinedFrames, Stored


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
        mask: Name of an array of masks, one for each pattern, non-zero at bad pixels.
        mask_ignores: Bits of those masks that do not make a pixel bad.
        positions_dtype: The dtype that the positions have in the file.
    """

    points_N2: NDArray[np.float64] | None = None
    bad_VU: NDArray[np.bool_] | None = None
    mask: str | None = None
    mask_ignores: int = 0
    positions_dtype: np.dtype[Any] | None = None


def several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return one name or several as several."""
    return (names,) if isinstance(names, str) else names


def in_words(names: str | tuple[str, ...] | None) -> str:
    """Return names as messages list them."""
    return ", ".join(several(names or ""))


def frames_of(names: str | tuple[str, ...], files: Sequence[ArrayFile], axes: str | None) -> Frames | JoinedFrames:
    """Return the frames of an array, or of several of them one after the other."""
    places = [(file, name) for file in files for name in several(names)]
    titles = [f"{file.source}: {name}" for file, name in places]
    parts = [Frames(file.stored(name), axes, title) for (file, name), title in zip(places, titles, strict=True)]
    return parts[0] if len(parts) == 1 else JoinedFrames(parts, titles)
