"""Says in words which patterns are out of step with the scan points, and what to write into the recipe instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trainkit_ptychography.preflight.in_step import OutOfStep, out_of_step
from trainkit_ptychography.preflight.single_scans import one_scan
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.pairing import Pairing
from trainkit_ptychography.scans.paste import Lines

if TYPE_CHECKING:
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.scan import Recording


def steps_in_words(recording: Recording, data: DiffractionData | None = None) -> Iterator[str]:
    """Yield which patterns belong to other scan points than is told, with the line that says so; nothing: none does.

    Args:
        recording: The scan, or several that are joined.
        data: Its settings; None: they are not known, so no line of theirs is named.
    """
    scan = recording.scan
    number_N = np.arange(len(scan.positions_N2)) if scan.points_N is None else scan.points_N
    told_T = np.arange(int(number_N.max()) + 1) if scan.point_T is None else scan.point_T
    point_T = told_T.copy()
    said = []
    for number in range(scan.num_scans):
        part = one_scan(recording, number) if scan.num_scans > 1 else recording
        of_part_N = number_N if scan.scan_N is None else number_N[scan.scan_N == number]
        for found in out_of_step(part):
            those = np.arange(found.first, found.last + 1)
            moved = those + found.later
            inside = (moved >= of_part_N.min()) & (moved <= of_part_N.max())
            point_T[those] = np.where(inside, told_T[np.clip(moved, 0, len(told_T) - 1)], -1)
            said.append(_in_words(found))
    if not said:
        return
    text = "; ".join(said)
    if isinstance(data, FileDiffraction):
        text += f": paste [data] {Lines().pairing(Pairing.of_points(point_T.tolist()))}; then check again"
    yield text


def _in_words(found: OutOfStep) -> str:
    low, high = found.between
    begins = "" if low == high else f" (or from one between {low} and {high} on)"
    points = "1 scan point" if abs(found.later) == 1 else f"{abs(found.later)} scan points"
    where, cause = "earlier", "saved patterns of no point, or some twice"
    if found.later > 0:
        where, cause = "later", "missed points"
    return (
        f"patterns {found.first} to {found.last}{begins} belong to {points} {where} than their places in the file "
        f"tell, as if the detector had {cause}: pairs that are neighbours only then are as alike as neighbours are "
        f"({found.as_moved:.2f}; 1 is that of neighbours, 0 that of any two), and pairs that are neighbours only as "
        f"told are less so ({found.as_told:.2f})"
    )
