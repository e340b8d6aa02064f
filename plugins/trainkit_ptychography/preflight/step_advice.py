"""Says in words whether patterns are in step with the scan points, and what to write into the recipe if not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainkit_ptychography.preflight.in_step import OutOfStep, Steps, in_step
from trainkit_ptychography.preflight.single_scans import one_scan
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.pairing import Pairing
from trainkit_ptychography.scans.paste import Lines

if TYPE_CHECKING:
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.scan import Recording

_MOST_NAMED = 6


class StepAdvice(NamedTuple):
    """What is said of the scan points that patterns are given.

    Attributes:
        lines: For each scan, whether its patterns were checked, and which lost frame would not show.
        doubts: Which patterns belong to other scan points than is told, with the line that says so.
    """

    lines: list[str]
    doubts: list[str]


def steps_in_words(recording: Recording, data: DiffractionData | None = None) -> StepAdvice:
    """Return what patterns say of the scan points that they are given.

    Args:
        recording: The scan, or several that are joined.
        data: Its settings; None: they are not known, so no line of theirs is named.
    """
    scan = recording.scan
    number_N = np.arange(len(scan.positions_N2)) if scan.points_N is None else scan.points_N
    told_T = np.arange(int(number_N.max(initial=-1)) + 1) if scan.point_T is None else scan.point_T
    point_T = told_T.copy()
    lines, said, certain = list[str](), list[str](), True
    for number in range(scan.num_scans):
        part = one_scan(recording, number) if scan.num_scans > 1 else recording
        steps = in_step(part)
        lines.append(_line(steps, len(told_T)) + (f" (scan {number})" if scan.num_scans > 1 else ""))
        if not steps.found:
            continue
        those = np.arange(len(steps.point_T))
        if scan.scan_N is not None:
            those = np.arange(*_range(number_N[scan.scan_N == number]))
        moved = steps.point_T[those]
        if scan.scan_N is not None:
            low, end = _range(told_T[those][told_T[those] >= 0])
            moved = np.where((moved >= low) & (moved < end), moved, -1)
        point_T[those] = moved
        said.append(_in_words(steps, "pairing tells" if scan.point_T is not None else "their places in the file tell"))
        certain &= steps.is_certain
    if not said:
        return StepAdvice(lines, [])
    text = "; ".join(said)
    if not certain:
        text += (
            ". Other changes explain the patterns nearly as well, so no line is named: compare the numbers or the "
            "times of frames and scan points, and write what is missing into [data] pairing"
        )
    elif isinstance(data, FileDiffraction):
        text += f": paste [data] {Lines().pairing(Pairing.of_points(point_T.tolist()))}; then check again"
    return StepAdvice(lines, [text])


def _range(number_K: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, int]:
    return int(number_K.min()), int(number_K.max()) + 1


def _line(steps: Steps, num: int) -> str:
    if steps.not_told:
        return f"pairing      not checked: {steps.not_told}"
    if steps.found:
        return "pairing      patterns are out of step with the scan points"
    if steps.seen is None:
        return "pairing      not checked: a lost frame would not show, since patterns or neighbours tell too little"
    first, last = steps.seen
    hidden = [f"before pattern {first}"] * (first > 0) + [f"after pattern {last}"] * (last < num - 1)
    line = "pairing      patterns are in step with the scan points"
    if hidden:
        line += f"; a frame that was lost {' or '.join(hidden)} of {num} would not show"
    return line


def _in_words(steps: Steps, told: str) -> str:
    parts = [_part_in_words(each) for each in steps.found[:_MOST_NAMED]]
    more = f", and {len(steps.found) - _MOST_NAMED} more stretches" if len(steps.found) > _MOST_NAMED else ""
    return (
        f"{', '.join(parts)}{more} than {told}: pairs of patterns that are neighbours only then are as alike as "
        f"neighbours are ({steps.as_found:.2f}; 1 is that of neighbours, 0 that of any two), and pairs that are "
        f"neighbours only as told are less so ({steps.as_told:.2f})"
    )


def _part_in_words(found: OutOfStep) -> str:
    low, high = found.between
    begins = "" if low == high else f" (or from one between {low} and {high} on)"
    points = "1 scan point" if abs(found.later) == 1 else f"{abs(found.later)} scan points"
    those = f"patterns {found.first} to {found.last}{begins} belong"
    if found.first == found.last:
        those = f"pattern {found.first}{begins} belongs"
    return f"{those} to {points} {'later' if found.later > 0 else 'earlier'}"
