"""Which scan point each pattern of a file belongs to, as a few changes from each of which on points come later.

A point that the detector missed is a change by +1 at the pattern that follows it; a pattern of no point is one by -1 at
that pattern.

Shapes: T = patterns of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Change(NamedTuple):
    """From a pattern on, each belongs to another scan point than it would without the change.

    Attributes:
        first: Number of the first of these patterns in the file.
        later: By how many points theirs come later; below 0: earlier, and as many patterns from there on have none.
    """

    first: int
    later: int


def points_of(changes: Iterable[Change], num_patterns: int, num_points: int) -> NDArray[np.int64]:
    """Return the number of each pattern's scan point (T,); -1: it has none.

    Example:
        >>> points_of([Change(1, 1), Change(3, -1)], 5, 5).tolist()
        [0, 2, 3, -1, 4]
    """
    later_T = np.zeros(num_patterns + 1, np.int64)
    for first, later in changes:
        later_T[min(max(first, 0), num_patterns)] += later
    point_T = np.arange(num_patterns) + np.cumsum(later_T[:-1])
    before_T = np.concatenate([[-1], np.maximum.accumulate(point_T)[:-1]])
    fits_T = (point_T > before_T) & (point_T >= 0) & (point_T < num_points)
    found_T: NDArray[np.int64] = np.where(fits_T, point_T, -1)
    return found_T


def changes_of(point_T: NDArray[np.int64]) -> tuple[Change, ...]:
    """Return the changes that give patterns their points, which grow.

    Example:
        >>> changes_of(np.array([0, 2, 3, -1, 4]))
        (Change(first=1, later=1), Change(first=3, later=-1))
    """
    found, before = list[Change](), 0
    for pattern in np.flatnonzero(point_T >= 0).tolist():
        later = int(point_T[pattern]) - pattern - before
        if later:
            found.append(Change(pattern + min(later, 0), later))
            before += later
    return tuple(found)
