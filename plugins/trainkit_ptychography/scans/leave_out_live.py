"""Chooses the patterns of a file that are used, and keeps everything that belongs to them in step.

Shapes: N = patterns or positions of a file, whichever are more; K = those that are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError
from trainkit_ptychography.scans.ranges import as_slice

if TYPE_CHECKING:
    from trainkit_ptychography.scans.leave_out import LeaveOut


class Selection(NamedTuple):
    """Which patterns of a file are used.

    Attributes:
        num: Patterns or positions of the file, whichever are more: N.
        named_K: Numbers of those that were left by name; what is as long as this is taken to belong to them.
        used_K: Numbers of those that are used.
        reasons: What was left out for which reason: reason -> how many.
    """

    num: int
    named_K: NDArray[np.int64]
    used_K: NDArray[np.int64]
    reasons: dict[str, int]

    def places(self, length: int) -> NDArray[np.int64] | None:
        """Return where in something of this length the used ones are; None: the length does not fit."""
        if length == self.num:
            return self.used_K
        if length == len(self.named_K):
            return np.flatnonzero(np.isin(self.named_K, self.used_K))
        return None

    def without(self, bad_K: NDArray[np.bool_], reason: str) -> Selection:
        """Return the selection without some of those that it used."""
        if not bad_K.any():
            return self
        return self._replace(used_K=self.used_K[~bad_K], reasons={**self.reasons, reason: int(bad_K.sum())})

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return len(self.used_K) == self.num


def by_name(settings: LeaveOut, num: int, marks_N: NDArray[Any] | None, source: str) -> Selection:
    """Leave out what is named by number or by an array.

    Args:
        settings: The settings.
        num: N.
        marks_N: The array of `LeaveOut.marks`.
        source: What messages call the file.

    Raises:
        DataError: A pattern or the array does not fit.
    """
    out_N = np.zeros(num, bool)
    for each in settings.points:
        if isinstance(each, str):
            out_N[as_slice(each)] = True
        elif each >= num:
            raise DataError(f"{source}: leave_out.points names pattern {each}, but there are {num} (0 to {num - 1})")
        else:
            out_N[each] = True
    reasons = {"leave_out.points": int(out_N.sum())} if out_N.any() else {}
    if marks_N is not None:
        if marks_N.size != num:
            raise DataError(f"{source}: leave_out.marks has {marks_N.size} values, but there are {num} patterns")
        marked_N = (marks_N.ravel() != 0) != (settings.marks_are == "good")
        if new := int((marked_N & ~out_N).sum()):
            reasons["leave_out.marks"] = new
        out_N |= marked_N
    kept_N = np.flatnonzero(~out_N)
    return Selection(num, kept_N, kept_N, reasons)


def by_light(settings: LeaveOut, selection: Selection, totals_K: NDArray[np.float64]) -> Selection:
    """Leave out patterns whose totals are far from the median.

    Args:
        settings: The settings.
        selection: Which patterns are used so far.
        totals_K: Their totals, as if all pixels had been measured in each.
    """
    lit_K = totals_K[totals_K > 0]
    median = float(np.median(lit_K)) if len(lit_K) else 0.0
    dim_K, bright_K = np.zeros(len(totals_K), bool), np.zeros(len(totals_K), bool)
    if settings.below is not None:
        dim_K = (totals_K < settings.below * median) | (totals_K == 0)
    if settings.above is not None:
        bright_K = totals_K > settings.above * median
    selection = selection.without(dim_K, f"below {settings.below:g} of the median total" if dim_K.any() else "")
    return selection.without(
        bright_K[~dim_K], f"above {settings.above:g} times the median total" if bright_K.any() else ""
    )
