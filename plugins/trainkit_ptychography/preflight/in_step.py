"""Whether patterns are in step with scan points, or belong, from some pattern on, to points a few earlier or later.

A detector that missed a trigger, or began late, leaves a file in which each pattern belongs to another scan point than
its place tells. In a raster, all patterns of a row are then moved alike, so they still fit each other, and neither a
trial nor a run notices: only at the ends of rows, and where the change is, are patterns taken for neighbours that lie
apart. So each change that is possible (its pattern, and by how many points) is rated by how much likelier it makes the
patterns of neighbouring points. Changes are added, moved and taken away while that helps, beginning with what is told:
so the result does not depend on it, and what is advised is advised again of itself.

Shapes: M = scan points, T = patterns of the file, N = those that are looked at, P = pairs of neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.preflight.alike import Learned, Likeness, Neighbours, both, components
from trainkit_ptychography.preflight.changes import Change, changes_of, points_of
from trainkit_ptychography.preflight.walks import as_raster, divisors
from trainkit_ptychography.scans.positions import raster
from trainkit_ptychography.scans.scan import Recording

FEWEST = 48
"""Patterns; fewer tell too little."""

_FARTHEST = 8  # points by which patterns may be moved
_WAYS = tuple(sign * far for far in range(1, _FARTHEST + 1) for sign in (1, -1))
_MOST = 2**14  # patterns that are read
_STRETCHES = 64
_ARE_ENOUGH = 2048  # points, to tell whether a raster has another shape
_COST = 15.0  # nats, of each change that is not told
_BETTER = 8.0  # nats, by which it must be better to move a change, or to take it away
_MOST_CHANGES = 6  # that are added; more are none of single frames
_TRIED = 3  # of the changes that look best: for these, what neighbours have in common is learned anew
_MOST_REVISED = 16  # of what is told
_LEAST, _MOST_SHARE = 0.4, 0.8  # how alike pairs as moved are at least, and pairs as told at most, over them
_AS_LIKELY = 3.0  # nats
_RIVAL = 10.0  # nats by which another number of points must be less likely
_SHOWS = 1.5  # times the cost


class OutOfStep(NamedTuple):
    """Patterns that do not belong to the scan points that are told.

    Attributes:
        first: Number of the first of them in the file: the likeliest one.
        between: The first and the last number that is nearly as likely.
        last: Number of the last of them.
        later: By how many places the scan point of each comes later than is told; below 0: earlier.
    """

    first: int
    between: tuple[int, int]
    last: int
    later: int


class Steps(NamedTuple):
    """What patterns say of the scan points that they are given.

    Attributes:
        point_T: The number of the scan point of each pattern of the file; -1: it has none.
        found: Patterns to which something else is told.
        as_told: How alike patterns are that are neighbours only as told: 1 as other neighbours, 0 as any two.
        as_found: The same of those that are neighbours only in the points that were found.
        is_certain: Whether no other change explains the patterns nearly as well.
        seen: A frame that was lost between these patterns would show; None: none would.
        not_told: Why patterns tell nothing; "": they do.
    """

    point_T: NDArray[np.int64]
    found: Sequence[OutOfStep] = ()
    as_told: float = np.nan
    as_found: float = np.nan
    is_certain: bool = True
    seen: tuple[int, int] | None = None
    not_told: str = ""


def in_step(recording: Recording) -> Steps:
    """Return whether the patterns of a scan belong to the points that are told, or to which ones they do.

    Args:
        recording: The scan, or one of several that are joined.
    """
    patterns, scan = recording
    number_N = np.arange(len(patterns)) if scan.points_N is None else scan.points_N
    told_T = np.arange(int(number_N.max(initial=-1)) + 1)
    if scan.point_T is not None:
        told_T = scan.point_T[: len(told_T)]
    if len(patterns) < FEWEST:
        return Steps(told_T, not_told=f"fewer than {FEWEST} patterns tell too little")
    positions_M2 = _positions(recording, number_N, told_T)
    neighbours = Neighbours(positions_M2)
    read_N = _worth_reading(neighbours, recording, number_N, told_T)
    changes = changes_of(told_T)
    if len(read_N) < len(number_N):  # other pairs tell nothing, wherever patterns are moved to
        from scipy.ndimage import maximum_filter1d  # not at the start of every run

        reach = _FARTHEST + sum(abs(each.later) for each in changes)
        is_read_M = np.zeros(len(neighbours), bool)
        is_read_M[told_T[number_N[read_N]]] = True
        neighbours = neighbours.between(maximum_filter1d(is_read_M, 2 * reach + 1, mode="constant"))
    place_T = np.full(len(told_T) + 1, -1)
    place_T[number_N[read_N]] = np.arange(len(read_N))
    as_changed_T = points_of(changes, len(told_T), len(neighbours))
    place_T[:-1][as_changed_T != told_T] = -1  # patterns that do not count, as is told
    likeness = Likeness(neighbours, components(patterns, read_N), place_T)
    search = _Search(likeness, told_T, 0 if scan.scan_N is None else int(number_N.min()))
    if not search.is_in_order():
        return Steps(told_T, not_told="patterns that follow each other are less alike than other neighbours")
    steps = search.steps()
    words = ""
    if steps.found and len(read_N) == len(number_N):
        words = _otherwise(likeness, positions_M2, told_T, steps.point_T)
    return Steps(told_T, not_told=f"neighbours are more alike {words}") if words else steps


def _otherwise(
    likeness: Likeness, positions_M2: NDArray[np.float64], told_T: NDArray[np.int64], point_T: NDArray[np.int64]
) -> str:
    """Return in which other raster the first patterns explain each other better than in some points; "": in none."""
    known_M = both(np.isfinite(positions_M2))
    total = len(positions_M2)
    told = as_raster(positions_M2[known_M], np.flatnonzero(known_M), total)
    if told is None:
        return ""
    known_M[_ARE_ENOUGH:] = False

    def nats(places_M2: NDArray[np.float64], belongs_T: NDArray[np.int64]) -> float:
        some = Neighbours(np.where(known_M[:, None], places_M2, np.nan))
        return _Search(likeness._replace(neighbours=some), told_T, 0).nats_of(belongs_T)

    best, words = nats(positions_M2, point_T), ""
    for columns, snake in product(divisors(total), (False, True)):
        shape = (total // columns, columns)
        if (shape, snake) != told[:2] and (found := nats(raster(shape, (1.0, 1.0), snake), told_T)) > best:
            best, words = found, f"in a raster of {shape[0]} × {columns} points"
            words += ", every second line of which runs backwards" * snake
    return words


class _Paired:
    """Patterns that are given scan points.

    Args:
        neighbours: The points that are neighbours.
        point_T: The number of the point of each pattern; -1: it has none.
    """

    def __init__(self, neighbours: Neighbours, point_T: NDArray[np.int64]) -> None:
        self.point_T, self._neighbours = point_T, neighbours
        self._pattern_M = np.full(len(neighbours), -1)
        has_T = point_T >= 0
        self._pattern_M[point_T[has_T]] = np.flatnonzero(has_T)

    def patterns(self, later: int = 0) -> NDArray[np.int64]:
        """Return the patterns (P, 2) of pairs of neighbours if each belongs to a later point; -1: there is none."""
        point_P2 = self._neighbours.pair_P2 - later
        inside_P2 = (point_P2 >= 0) & (point_P2 < len(self._pattern_M))
        patterns_P2: NDArray[np.int64] = np.where(
            inside_P2, self._pattern_M[np.clip(point_P2, 0, len(self._pattern_M) - 1)], -1
        )
        return patterns_P2

    def latest_start(self, later: int) -> NDArray[np.int64]:
        """Return the last pattern (T,) from which on patterns can be moved so that each of them still has a point."""
        own_T = np.arange(len(self.point_T))
        if later >= 0:
            return own_T
        taken_T = np.maximum.accumulate(self.point_T)
        return np.minimum(own_T, np.searchsorted(taken_T, self.point_T + later, side="left"))


class _Rated(NamedTuple):
    """A change, and how much likelier it makes the patterns."""

    nats: float
    change: Change


class _Search:
    """Looks for the points that patterns belong to.

    Args:
        likeness: Tells how alike patterns are.
        told_T: The number of the point of each pattern, as is told; -1: it has none.
        start: The first pattern that may be moved.
    """

    def __init__(self, likeness: Likeness, told_T: NDArray[np.int64], start: int) -> None:
        self._likeness, self._neighbours, self._told_T, self._start = likeness, likeness.neighbours, told_T, start

    def is_in_order(self) -> bool:
        return self._likeness.is_in_order(self._learned(self._paired(changes_of(self._told_T))))

    def nats_of(self, point_T: NDArray[np.int64]) -> float:
        """Return how much likelier patterns are in some points for what neighbours have in common."""
        return self._nats(_Paired(self._neighbours, point_T))

    def steps(self) -> Steps:
        """Return what patterns say of the points that are told."""
        changes = told = changes_of(self._told_T)
        while (better := self._better(changes, len(changes) - len(told) < _MOST_CHANGES)) is not None:
            changes = better
        paired = self._paired(changes)
        shows_T = -self._gains(paired, 1, *2 * (self._learned(paired),))[self._start :] >= _SHOWS * _COST
        shown = self._start + np.flatnonzero(shows_T)
        seen = (int(shown[0]), int(shown[-1])) if len(shown) else None
        if changes == told or seen is None:
            return Steps(self._told_T, seen=seen)
        as_told, as_found = self._contrast(self._paired(told), paired)
        certain, between = len(changes) - len(told) < _MOST_CHANGES, {}
        for each in set(changes) - set(told):
            is_alone, between[each.first] = self._certainty(changes, each)
            certain &= is_alone
        found = tuple(_found(self._told_T, paired.point_T, between))
        return Steps(paired.point_T, found, as_told, as_found, certain, seen)

    def _better(self, changes: tuple[Change, ...], may_add: bool) -> tuple[Change, ...] | None:
        """Return changes that explain patterns better; None: one more, or another, or one less does not help."""
        paired = self._paired(changes)
        learned, as_it_is = self._learned(paired), self._nats(paired)
        best, found = 0.0, None
        for each in changes if len(changes) <= _MOST_REVISED else ():
            others = _without(changes, each)
            rated = self._likeliest(self._paired(others), [learned], {each.later, *_WAYS})[:_TRIED]
            instead = [_with(others, more.change) for more in rated if more.nats > _COST]
            for revised in (others, *instead):
                gain = self._nats(self._paired(revised)) - as_it_is
                if gain > max(best, _BETTER) and self._tells(paired, self._paired(revised)):
                    best, found = gain, revised
        if may_add:
            moved = [
                self._likeliest(paired, [learned, self._likeness.learn(paired.patterns(way))], {way}) for way in _WAYS
            ]
            for more in sorted(chain(*moved), reverse=True)[:_TRIED]:
                added = _with(changes, more.change)
                gain = min(more.nats, self._nats(self._paired(added)) - as_it_is) - _COST
                if gain > best and self._tells(paired, self._paired(added)):
                    best, found = gain, added
        return found

    def _likeliest(self, paired: _Paired, learned: Sequence[Learned], ways: set[int]) -> list[_Rated]:
        """Return the best change for each number of points, the best of them first.

        Args:
            paired: The patterns as they are without it.
            learned: What neighbours have in common: before the change, and, to be tried as well, behind it.
            ways: By how many points patterns may be moved.
        """
        found = []
        for later in ways:
            for behind in learned:
                gain_T = self._gains(paired, later, learned[0], behind)[self._start :]
                first = int(gain_T.argmax())
                found.append(_Rated(float(gain_T[first]), Change(self._start + first, later)))
        return sorted(found, reverse=True)

    def _nats(self, paired: _Paired) -> float:
        """Return how much likelier the patterns of neighbours are for what these have in common."""
        return float(self._likeness.nats(paired.patterns(), self._learned(paired)).sum())

    def _gains(self, paired: _Paired, later: int, before: Learned, behind: Learned) -> NDArray[np.float64]:
        """Return how much likelier patterns are if those from each one on (T,) are moved by some points.

        Args:
            paired: The patterns as they are without it.
            later: By how many points.
            before: What neighbours have in common, to judge patterns that stay, and those that stay by those that move.
            behind: The same, to judge patterns that move.
        """
        neighbours, nats = self._neighbours, self._likeness.nats
        num, latest_T = len(paired.point_T), paired.latest_start(later)
        total = np.zeros(num + 2)  # of a change at each pattern, as differences

        def add(nats_Q: NDArray[np.float64], start_Q: NDArray[np.int64], end_Q: NDArray[np.int64]) -> None:
            """Count pairs for changes between two patterns, these included."""
            holds_Q = start_Q <= end_Q
            for at_Q, sign in ((start_Q, 1), (end_Q + 1, -1)):
                total[:] += sign * np.bincount(at_Q[holds_Q], nats_Q[holds_Q], num + 2)

        stay_P2, move_P2 = paired.patterns(), paired.patterns(later)
        point_P2 = neighbours.pair_P2
        stay_P, move_P = both(stay_P2 >= 0), both(move_P2 >= 0)
        nats_P = nats(stay_P2, before)
        add(nats_P[stay_P], stay_P2[stay_P].max(axis=1) + 1, np.full(int(stay_P.sum()), num))
        both_P = stay_P & (neighbours.are(point_P2 + later) | ~neighbours.are_known(point_P2 + later))
        add(nats_P[both_P], np.zeros(int(both_P.sum()), np.int64), latest_T[stay_P2[both_P]].min(axis=1))
        only_P = move_P & ~neighbours.are(point_P2 - later)
        nats_P = nats(np.where(only_P[:, None], move_P2, -1), behind)
        add(nats_P[only_P], np.zeros(int(only_P.sum()), np.int64), latest_T[move_P2[only_P]].min(axis=1))
        for stays, moves in ((0, 1), (1, 0)):
            stays_P, moves_P = stay_P2[:, stays], move_P2[:, moves]
            mixed_P = (stays_P >= 0) & (moves_P >= 0)
            mixed_P[mixed_P] = stays_P[mixed_P] < latest_T[moves_P[mixed_P]]
            mixed_P2 = np.full_like(stay_P2, -1)
            mixed_P2[mixed_P, stays], mixed_P2[mixed_P, moves] = stays_P[mixed_P], moves_P[mixed_P]
            nats_P = nats(mixed_P2, before)
            add(nats_P[mixed_P], stays_P[mixed_P] + 1, latest_T[moves_P[mixed_P]])
        total = np.cumsum(total)
        gain_T: NDArray[np.float64] = total[:num] - total[num]
        return gain_T

    def _contrast(self, told: _Paired, found: _Paired) -> tuple[float, float]:
        """Return how alike pairs of patterns are that are neighbours only in one, and only in the other."""
        shares = []
        for one, other in ((told, found), (found, told)):
            pattern_P2 = one.patterns()
            has_P = both(pattern_P2 >= 0)
            point_P2 = np.where(has_P[:, None], other.point_T[pattern_P2], -1)
            only_P = has_P & self._neighbours.are_known(point_P2) & ~self._neighbours.are(point_P2)
            alike_P = self._likeness.alike(np.where(only_P[:, None], pattern_P2, -1), self._learned(found))
            alike_P = alike_P[np.isfinite(alike_P)]
            shares.append(float(alike_P.mean()) if len(alike_P) else 0.0)
        return shares[0], shares[1]

    def _tells(self, told: _Paired, found: _Paired) -> bool:
        """Return whether neighbours are alike as found, and it is not spoiled patterns that were moved away."""
        as_told, as_found = self._contrast(told, found)
        return as_found >= _LEAST and as_told <= _MOST_SHARE * as_found

    def _certainty(self, changes: tuple[Change, ...], change: Change) -> tuple[bool, tuple[int, int]]:
        """Return whether no other number of points is nearly as likely, and at which patterns the change may be."""
        others, paired = _without(changes, change), self._paired(changes)
        without, learned, nats = self._paired(others), self._learned(paired), self._nats(paired)
        gain_T = self._gains(without, change.later, learned, learned)
        likely = self._start + np.flatnonzero(gain_T[self._start :] >= gain_T[change.first] - _AS_LIKELY)
        rivals = self._likeliest(without, [learned], {*_WAYS} - {change.later})[:_TRIED]
        next_best = max(self._nats(self._paired(_with(others, each.change))) for each in rivals)
        return next_best < nats - _RIVAL, (int(likely[0]), int(likely[-1]))

    def _paired(self, changes: Sequence[Change]) -> _Paired:
        return _Paired(self._neighbours, points_of(changes, len(self._told_T), len(self._neighbours)))

    def _learned(self, paired: _Paired) -> Learned:
        return self._likeness.learn(paired.patterns())


def _without(changes: tuple[Change, ...], one: Change) -> tuple[Change, ...]:
    return tuple(each for each in changes if each is not one)


def _with(changes: tuple[Change, ...], one: Change) -> tuple[Change, ...]:
    return tuple(sorted((*changes, one)))


def _found(
    told_T: NDArray[np.int64], point_T: NDArray[np.int64], between: dict[int, tuple[int, int]]
) -> Iterator[OutOfStep]:
    """Yield stretches of patterns whose points differ alike from those that are told."""
    both = np.flatnonzero((told_T >= 0) & (point_T >= 0))
    later_K = point_T[both] - told_T[both]
    starts_K = np.flatnonzero(np.diff(later_K, prepend=0))
    for start, end in zip(starts_K, [*starts_K[1:], len(both)], strict=True):
        if later_K[start]:
            first = int(both[start])
            while first and point_T[first - 1] < 0 <= told_T[first - 1]:
                first -= 1  # those that belong to no point are named with those that follow
            low, high = between.get(first, (first, first))
            yield OutOfStep(first, (min(low, first), max(high, first)), int(both[end - 1]), int(later_K[start]))


def _positions(recording: Recording, number_N: NDArray[np.int64], told_T: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the scan points (M, 2) are; NaN: it is not known."""
    scan = recording.scan
    every_M2 = scan.every_point_M2
    num = int(told_T.max(initial=-1)) + 1 if every_M2 is None else len(every_M2)
    positions_M2 = np.full((num, 2), np.nan)
    positions_M2[told_T[number_N]] = scan.positions_N2
    if every_M2 is not None:
        of_scan = told_T[number_N]
        every_M2 = every_M2.copy()
        if scan.scan_N is not None:
            every_M2[: of_scan.min()], every_M2[of_scan.max() + 1 :] = np.nan, np.nan
        known_M = both(np.isfinite(positions_M2))
        offset_2 = np.median(positions_M2[known_M] - every_M2[known_M], axis=0)
        positions_M2[~known_M] = every_M2[~known_M] + offset_2
    return positions_M2


def _worth_reading(
    neighbours: Neighbours, recording: Recording, number_N: NDArray[np.int64], told_T: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return which patterns (N,) to look at: all, or if these are too many, those that tell.

    In a raster these are the ends of its lines. Where all patterns tell, a strip is enough that all lines cross.
    """
    num = len(number_N)
    if num <= _MOST:
        return np.arange(num)
    tells_M = np.zeros(len(neighbours), bool)
    for later in _WAYS:
        point_P2 = neighbours.pair_P2 + later
        only_P = neighbours.are_known(point_P2) & ~neighbours.are(point_P2)
        tells_M[neighbours.pair_P2[only_P]] = True  # as told
        tells_M[point_P2[only_P & both(point_P2 >= 0)]] = True
    telling_N = np.flatnonzero(tells_M[told_T[number_N]])
    if len(telling_N) <= _MOST:
        return telling_N
    positions_N2 = recording.scan.positions_N2
    away_N2 = np.abs(positions_N2 - np.median(positions_N2, axis=0))
    strips = [np.sort(np.argsort(away_N, kind="stable")[:_MOST]) for away_N in away_N2.T]
    return max(strips, key=lambda strip: len(np.unique(strip * _STRETCHES // num)))
