"""Which scan points have no pattern, and which patterns no scan point: the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from trainkit import component
from trainkit_ptychography.scans.ranges import as_slice, numbers_or_ranges


@component
class Pairing:
    """Keeps patterns in step with scan points where the detector missed some points, or saved patterns of none.

    The patterns that are left belong to the points that are left, in order; what remains at the end of the longer of
    the two is not used. ``check --data`` says if patterns look out of step, and what to write here.

    Attributes:
        missed_points: Numbers of scan points that have no pattern, from 0 in the order of the scan, or ranges like
            those of Python: "10:20" are ten. Patterns from there on belong to later points than their place tells.
        extra_patterns: Numbers of patterns that belong to no scan point, from 0 as in the file, or ranges: "0:3" are
            those of a detector that began three patterns too early.
    """

    missed_points: tuple[int | str, ...] = attrs.field(default=(), validator=numbers_or_ranges)
    extra_patterns: tuple[int | str, ...] = attrs.field(default=(), validator=numbers_or_ranges)

    def names_any(self) -> bool:
        """Return whether any point or pattern is named."""
        return bool(self.missed_points or self.extra_patterns)

    def points(self, num_patterns: int, num_points: int) -> list[int]:
        """Return the number of each pattern's scan point; -1: it has none.

        Raises:
            ValueError: A number is too large.

        Example:
            >>> Pairing(missed_points=(1,)).points(4, 4)
            [0, 2, 3, -1]
            >>> Pairing(extra_patterns=("0:2",)).points(4, 4)
            [-1, -1, 0, 1]
        """
        missed = _those(self.missed_points, num_points, "missed_points", "scan points")
        extra = _those(self.extra_patterns, num_patterns, "extra_patterns", "patterns")
        left = iter([each for each in range(num_points) if each not in missed])
        return [-1 if each in extra else next(left, -1) for each in range(num_patterns)]

    @classmethod
    def of_points(cls, points: Sequence[int]) -> Pairing:
        """Return the settings that give each pattern the scan point with a number; -1: none. Numbers grow.

        Example:
            >>> Pairing.of_points([0, 2, 3, -1])
            Pairing(missed_points=(1,), extra_patterns=())
        """
        missed, extra, expected = list[int](), list[int](), 0
        for pattern, point in enumerate(points):
            if point < expected:
                extra.append(pattern)
                continue
            missed += range(expected, point)
            expected = point + 1
        last = max((pattern for pattern, point in enumerate(points) if point >= 0), default=-1)
        extra = [each for each in extra if each < last]  # those at the end have no point anyway
        return cls(missed_points=_ranges(missed), extra_patterns=_ranges(extra))


def _those(named: Iterable[int | str], total: int, key: str, what: str) -> set[int]:
    found = set[int]()
    for each in named:
        if isinstance(each, str):
            named_by_range = range(total)[as_slice(each)]
            if not named_by_range:
                raise ValueError(f'pairing.{key} names "{each}", which are none of {total} {what} (0 to {total - 1})')
            found |= set(named_by_range)
        elif each >= total:
            raise ValueError(f"pairing.{key} names {each}, but there are {total} {what} (0 to {total - 1})")
        else:
            found.add(each)
    return found


def _ranges(numbers: Sequence[int]) -> tuple[int | str, ...]:
    """Return numbers, which grow, as they are written: those that follow each other as a range."""
    found = list[list[int]]()
    for each in numbers:
        if found and each == found[-1][1]:
            found[-1][1] += 1
        else:
            found.append([each, each + 1])
    return tuple(start if end == start + 1 else f"{start}:{end}" for start, end in found)
