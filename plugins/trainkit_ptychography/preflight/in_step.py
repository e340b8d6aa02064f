"""Whether patterns are in step with scan points, or belong, from some pattern on, to points a few earlier or later.

A detector that missed a trigger, or began late, leaves a file in which each pattern belongs to another scan point than
its place tells. In a raster, all patterns of a row are then moved alike, so they still fit each other, and neither a
trial nor a run notices: only at the ends of rows are patterns taken for neighbours that lie a whole row apart. So pairs
of patterns that are neighbours only as told are held against pairs that are neighbours only if patterns are moved. What
neighbours have in common is learned from the other parts of the scan, which needs no geometry and no reconstruction.

Shapes: T = patterns of the file, N = those that are looked at, P = pairs of neighbours, F = features of a pattern, C =
its principal components, K = ways to move patterns, B = stretches of the scan, one after the other.

Source:
    Viterbi, IEEE Trans. Inf. Theory 13 (1967) 260 (the likeliest sequence).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.physics.canonical import Common
from trainkit_ptychography.preflight.sample import lit_part
from trainkit_ptychography.scans.neighbours import neighbours
from trainkit_ptychography.scans.patterns import Patterns
from trainkit_ptychography.scans.scan import Recording

_FARTHEST = 8  # points by which patterns may be moved
_WAYS = (0, *(sign * far for far in range(1, _FARTHEST + 1) for sign in (1, -1)))
_FEWEST = 100  # patterns
_MOST = 2**14  # patterns that are read
_SECTORS = 4  # directions in which neighbours lie: along both axes of a raster, and along its diagonals
_STRETCHES = 64
_PARTS = 8  # of the scan, each of which is judged by what the others show
_BINS = 24  # along a pattern's longer side
_COMPONENTS = 24
_PATTERNS_A_COMPONENT = 12
_PAIRS_A_COMPONENT = 3
_READ_AT_ONCE = 256
_MOST_NATS = 8.0  # that a pair may tell
_COST = 15.0  # nats, of each change in the number of points
_FEWEST_PAIRS = 10  # that are neighbours only as told, and only as moved
_HALF = 0.5  # of the nats of the latter, that the former have at most
_LEAST, _MOST_SHARE = 0.3, 0.8  # how alike the latter are at least, and the former at most, over them
_SPEAKS = 10.0  # nats
_IN_ORDER = 0.3  # of what the neighbours in another direction have in common; 1 where steps are as long
_AS_LIKELY = 3.0  # nats


class OutOfStep(NamedTuple):
    """Patterns that do not belong to the scan points that their places in the file tell.

    Attributes:
        first: Number of the first of them in the file: the likeliest one.
        between: The first and the last number that is nearly as likely.
        last: Number of the last of them.
        later: By how many places the scan point of each comes later than is told; below 0: earlier.
        as_told: How alike patterns are that are neighbours only as told: 1 as other neighbours, 0 as any two.
        as_moved: The same of those that are neighbours only if each is moved so.
    """

    first: int
    between: tuple[int, int]
    last: int
    later: int
    as_told: float
    as_moved: float


def out_of_step(recording: Recording) -> list[OutOfStep]:
    """Return which patterns of a scan belong to other scan points than is told; none, if nothing tells."""
    patterns, scan = recording
    if len(patterns) < _FEWEST:
        return []
    number_N = np.arange(len(patterns)) if scan.points_N is None else scan.points_N
    scanned = _Scanned.of(scan.positions_N2, number_N)
    read_N = _worth_reading(scanned, recording)
    if len(read_N) < len(patterns):
        scanned = scanned.of_some(number_N[read_N])
    alike = _Alike(scanned, _components(patterns, read_N))
    if not alike.is_in_order():
        return []
    nats_KB = np.zeros((len(_WAYS), scanned.num_stretches))
    for k, later in enumerate(_WAYS[1:], 1):
        for only_P, belongs, sign in ((scanned.only_told(later), 0, -1), (scanned.only_moved(later), later, 1)):
            nats_P = np.where(only_P, alike.nats(scanned.places(belongs), belongs), 0.0)
            np.add.at(nats_KB[k], scanned.stretch(belongs), sign * np.nan_to_num(nats_P))
    path_B = _likeliest(nats_KB)
    found: list[OutOfStep] = []
    starts_B = [0, *(np.flatnonzero(np.diff(path_B)) + 1).tolist(), scanned.num_stretches]
    before = 0
    for start, end in pairwise(starts_B):
        way = int(path_B[start])
        judged = _judged(scanned, alike, _WAYS[way], start, end) if way else None
        first = 0
        if start and (judged is not None or before):
            window = _around(start, nats_KB[way] - nats_KB[before])
            first, between = _first(scanned, alike, _WAYS[before], _WAYS[way] if judged is not None else 0, window)
            if not before and first <= abs(_WAYS[way]):
                first = 0  # so few patterns before it tell nothing
            if before:
                found[-1] = found[-1]._replace(last=first - 1)
            if judged is not None:
                judged = judged._replace(first=first, between=(min(first, between[0]), between[1]))
        if judged is not None:
            found.append(judged)
        before = way if judged is not None else 0
    return found


class _Scanned(NamedTuple):
    """Which points are neighbours, and which patterns belong to them.

    Attributes:
        pair_P2: Numbers of points that are neighbours; the second lies in about the same direction from the first,
            within a sector.
        sector_P: In which direction.
        place_T: Which of the patterns that are looked at has a number in the file; -1: none. Followed by places for
            numbers that are too large, or below 0.
        known_T: Whether the position of a point is known, likewise.
        neighbours: What `_key` makes of the pairs.
        edges_B: The first number of each stretch, and the one after the last.
    """

    pair_P2: NDArray[np.int64]
    sector_P: NDArray[np.int64]
    place_T: NDArray[np.int64]
    known_T: NDArray[np.bool_]
    neighbours: NDArray[np.int64]
    edges_B: NDArray[np.int64]

    @classmethod
    def of(cls, positions_N2: NDArray[np.float64], number_N: NDArray[np.int64]) -> _Scanned:
        """Return how points lie, if all their patterns are looked at."""
        pair_P2 = neighbours(positions_N2)
        step_P2 = positions_N2[pair_P2[:, 1]] - positions_N2[pair_P2[:, 0]]
        angle_P = np.arctan2(step_P2[:, 0], step_P2[:, 1])
        axis = np.angle(np.exp(_SECTORS * 1j * angle_P).mean()) / _SECTORS  # of a raster, wherever it is turned to
        sector_P = np.round((angle_P - axis) * _SECTORS / np.pi).astype(np.int64) % (2 * _SECTORS)
        pair_P2 = np.where(sector_P[:, None] >= _SECTORS, pair_P2[:, ::-1], pair_P2)
        size = int(number_N.max()) + 1 + 2 * _FARTHEST
        place_T = np.full(size, -1)
        place_T[number_N] = np.arange(len(number_N))
        number_P2 = number_N[pair_P2]
        last_P = number_P2.max(axis=1)
        edges_B = np.unique(np.quantile(last_P, np.linspace(0, 1, _STRETCHES + 1), method="nearest"))
        edges_B[-1] += 1
        return cls(number_P2, sector_P % _SECTORS, place_T, place_T >= 0, _key(number_P2), edges_B)

    def of_some(self, number_N: NDArray[np.int64]) -> _Scanned:
        """Return the same if patterns of these numbers alone are looked at."""
        place_T = np.full(len(self.place_T), -1)
        place_T[number_N] = np.arange(len(number_N))
        return self._replace(place_T=place_T)

    @property
    def num_stretches(self) -> int:
        """Number of stretches."""
        return len(self.edges_B) - 1

    def places(self, later: int) -> NDArray[np.int64]:
        """Return the patterns (P, 2) of all pairs of points, if each belongs to a later point; -1: there is none."""
        return self.place_T[self.pair_P2 - later]

    def only_told(self, later: int) -> NDArray[np.bool_]:
        """Return which pairs of patterns (P,) would be no neighbours any more if each belongs to a later point."""
        moved_P2 = self.pair_P2 + later
        known_P = self.known_T[moved_P2].all(axis=1) & (self.places(0) >= 0).all(axis=1)
        only_P: NDArray[np.bool_] = known_P & ~np.isin(_key(moved_P2), self.neighbours)
        return only_P

    def only_moved(self, later: int) -> NDArray[np.bool_]:
        """Return of which pairs of points (P,) the patterns would then be neighbours that are none as told."""
        moved_P2 = self.pair_P2 - later
        only_P: NDArray[np.bool_] = (self.places(later) >= 0).all(axis=1) & ~np.isin(_key(moved_P2), self.neighbours)
        return only_P

    def stretch(self, later: int) -> NDArray[np.int64]:
        """Return in which stretch pairs of patterns (P,) end."""
        last_P = (self.pair_P2 - later).max(axis=1)
        found_P = np.searchsorted(self.edges_B, last_P, side="right") - 1
        clipped_P: NDArray[np.int64] = np.clip(found_P, 0, self.num_stretches - 1)
        return clipped_P


class _Alike:
    """How much likelier pairs of patterns are if they are neighbours than if they are any two.

    Args:
        scanned: The pairs.
        component_NC: Principal components of the patterns, of variance 1.
    """

    def __init__(self, scanned: _Scanned, component_NC: NDArray[np.float64]) -> None:
        self._scanned, self._component_NC = scanned, component_NC
        self._part_P = scanned.stretch(0) * _PARTS // scanned.num_stretches
        self._learned: dict[int, dict[tuple[int, int], Common]] = {}

    def is_in_order(self) -> bool:
        """Return whether patterns that follow each other have about as much in common as other neighbours have.

        Where they have not, points are visited in another order than is told, as if every second column of a raster
        were reversed, and moving patterns mends nothing. Where few neighbours follow each other, this says nothing.
        """
        follows_P = np.abs(np.diff(self._scanned.pair_P2, axis=1))[:, 0] == 1
        number_S = np.bincount(self._scanned.sector_P[follows_P], minlength=_SECTORS)
        along = int(number_S.argmax())
        if number_S[along] < len(self._component_NC) / 2:
            return True
        strength_S = np.zeros(_SECTORS)
        for (sector, _), common in self._common(0).items():
            strength_S[sector] += float(np.square(common.correlation_C).sum()) / _PARTS
        return bool(strength_S[along] >= _IN_ORDER * strength_S.max())

    def nats(self, places_P2: NDArray[np.int64], later: int) -> NDArray[np.float64]:
        """Return the logarithm of that ratio (P,) for patterns in the places of pairs of points; NaN: nothing tells.

        Args:
            places_P2: A pair of patterns for each pair of points; -1: there is none.
            later: What neighbours have in common is learned as if each pattern belonged to a point so much later.
        """
        return np.clip(self._figures(places_P2, later, Common.nats), -_MOST_NATS, _MOST_NATS)

    def alike(self, places_P2: NDArray[np.int64], later: int) -> NDArray[np.float64]:
        """Return how alike they are (P,), on average 1 if they are neighbours, 0 if they are any two; as `nats`."""
        return self._figures(places_P2, later, Common.alike)

    def _figures(
        self, places_P2: NDArray[np.int64], later: int, figure: Callable[..., NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        found_P, there_P = np.full(len(places_P2), np.nan), (places_P2 >= 0).all(axis=1)
        for (sector, part), common in self._common(later).items():
            mine_P = there_P & (self._scanned.sector_P == sector) & (self._part_P == part)
            found_P[mine_P] = figure(common, *(self._component_NC[places_P2[mine_P, each]] for each in (0, 1)))
        return found_P

    def _common(self, later: int) -> dict[tuple[int, int], Common]:
        """Return what `_learn` does as if each pattern belonged to a point so much later; it is learned once."""
        if later not in self._learned:
            self._learned[later] = dict(self._learn(self._scanned.places(later)))
        return self._learned[later]

    def _learn(self, places_P2: NDArray[np.int64]) -> Iterator[tuple[tuple[int, int], Common]]:
        """Yield what neighbours have in common, for each direction and part of the scan by what the others show."""
        there_P, fewest = (places_P2 >= 0).all(axis=1), _PAIRS_A_COMPONENT * self._component_NC.shape[1]
        for sector in range(_SECTORS):
            parts = [there_P & (self._scanned.sector_P == sector) & (self._part_P == part) for part in range(_PARTS)]
            counts = [int(each.sum()) for each in parts]
            if sum(counts) - max(counts) < fewest:
                continue
            products = [
                self._component_NC[places_P2[each, 0]].T @ self._component_NC[places_P2[each, 1]] for each in parts
            ]
            whole_CC = np.sum(products, axis=0)
            for part, (product_CC, count) in enumerate(zip(products, counts, strict=True)):
                num = sum(counts) - count
                yield (sector, part), Common.of((whole_CC - product_CC) / num, num)


def _judged(scanned: _Scanned, alike: _Alike, later: int, start: int, end: int) -> OutOfStep | None:
    """Return what tells that the patterns of some stretches belong to later points; None: they are not so alike."""
    nats, shares = [], []
    for only_P, belongs in ((scanned.only_told(later), 0), (scanned.only_moved(later), later)):
        places_P2, stretch_P = scanned.places(belongs), scanned.stretch(belongs)
        nats_P = alike.nats(places_P2, belongs)
        mine_P = only_P & (stretch_P >= start) & (stretch_P < end) & np.isfinite(nats_P)
        if mine_P.sum() < _FEWEST_PAIRS:
            return None
        nats.append(float(nats_P[mine_P].mean()))
        shares.append(float(alike.alike(places_P2, belongs)[mine_P].mean()))
    if shares[1] < _LEAST or shares[0] > _MOST_SHARE * shares[1] or nats[0] > _HALF * nats[1]:
        return None
    last = int(scanned.edges_B[end]) - 1
    return OutOfStep(0, (0, 0), last, later, *shares)


def _around(start: int, nats_B: NDArray[np.float64]) -> tuple[int, int]:
    """Return between which stretches a change must lie: those before speak against it, those behind for it."""
    against_B = np.flatnonzero(np.cumsum(nats_B[:start][::-1])[::-1] < -_SPEAKS)
    speaking_B = start + np.flatnonzero(np.cumsum(nats_B[start:]) > _SPEAKS)
    return int(against_B.max(initial=0)), int(speaking_B.min(initial=len(nats_B) - 1))


def _first(
    scanned: _Scanned, alike: _Alike, before: int, later: int, stretches: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """Return the likeliest pattern with which a change begins, and the range of those that are nearly as likely.

    Args:
        scanned: The pairs.
        alike: Tells how likely they are.
        before: By how much later points the patterns before belong to.
        later: The same from there on.
        stretches: The first and the last one in which it can begin.
    """
    low, high = int(scanned.edges_B[stretches[0]]), int(scanned.edges_B[stretches[1] + 1])
    number_2P2 = [
        scanned.pair_P2 - each for each in (before, later)
    ]  # of the patterns at the points, if before or after
    near_P = np.any([((each >= low) & (each < high)).any(axis=1) for each in number_2P2], axis=0)
    first_N = np.arange(low, high)
    total_N = np.zeros(len(first_N))
    for one, other in ((0, 0), (0, 1), (1, 0), (1, 1)):
        number_P2 = np.stack([number_2P2[one][:, 0], number_2P2[other][:, 1]], axis=1)
        nats_P = np.nan_to_num(alike.nats(scanned.place_T[number_P2], (before, later)[one & other]))
        holds_PN = np.ones((int(near_P.sum()), len(first_N)), bool)
        for is_after, number_P in zip((one, other), number_P2[near_P].T, strict=True):
            holds_PN &= (number_P[:, None] >= first_N) == bool(is_after)
        total_N += nats_P[near_P] @ holds_PN
    likely_N = first_N[total_N >= total_N.max() - _AS_LIKELY]
    return int(first_N[total_N.argmax()]), (int(likely_N[0]), int(likely_N[-1]))


def _likeliest(nats_KB: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the way in which patterns are moved in each stretch (B,), as few changes as are worth it."""
    best_K, came_from = nats_KB[:, 0] - _COST * (np.arange(len(nats_KB)) > 0), []
    for nats_K in nats_KB.T[1:]:
        other = int(best_K.argmax())
        from_K = np.where(best_K >= best_K[other] - _COST, np.arange(len(best_K)), other)
        best_K = best_K[from_K] - _COST * (from_K != np.arange(len(best_K))) + nats_K
        came_from.append(from_K)
    path = [int(best_K.argmax())]
    for from_K in reversed(came_from):
        path.append(int(from_K[path[-1]]))
    return np.array(path[::-1])


def _worth_reading(scanned: _Scanned, recording: Recording) -> NDArray[np.int64]:
    """Return which patterns (N,) to look at: all, or if these are too many, those that tell.

    In a raster these are the ends of its lines. Where all patterns tell, a strip is enough that all lines cross.
    """
    num = len(recording.intensities_NYX)
    if num <= _MOST:
        return np.arange(num)
    tells_T = np.zeros(len(scanned.place_T), bool)
    for later in _WAYS[1:]:
        for which_P, belongs in ((scanned.only_told(later), 0), (scanned.only_moved(later), later)):
            tells_T[scanned.pair_P2[which_P] - belongs] = True
    telling_N = np.unique(scanned.place_T[tells_T])
    telling_N = telling_N[telling_N >= 0]
    if len(telling_N) <= _MOST:
        return telling_N
    positions_N2 = recording.scan.positions_N2
    away_N2 = np.abs(positions_N2 - np.median(positions_N2, axis=0))
    strips = [np.sort(np.argsort(away_N, kind="stable")[:_MOST]) for away_N in away_N2.T]
    return max(strips, key=lambda strip: len(np.unique(strip * _STRETCHES // num)))


def _components(patterns: Patterns, read_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return principal components (N, C) of the patterns, of variance 1: of the roots of their light, in a few bins."""
    some = read_N[np.linspace(0, len(read_N) - 1, min(_STRETCHES, len(read_N))).round().astype(np.int64)]
    mean_YX = np.nan_to_num(np.asarray(patterns[some], np.float64)).mean(axis=0)
    lit_2 = lit_part(mean_YX)
    rows, columns = ((np.arange(lit) - lit // 2) % size for lit, size in zip(lit_2, mean_YX.shape, strict=True))
    down, right = (np.arange(0, lit, -(-max(lit_2) // _BINS)) for lit in lit_2)
    found = []
    for start in range(0, len(read_N), _READ_AT_ONCE):
        part = np.nan_to_num(np.asarray(patterns[read_N[start : start + _READ_AT_ONCE]], np.float64))
        part = np.add.reduceat(part[:, rows[:, None], columns], down, axis=1)
        found.append(np.sqrt(np.maximum(np.add.reduceat(part, right, axis=2), 0)).reshape(len(part), -1))
    value_NF = np.concatenate(found)
    value_NF /= np.maximum(np.linalg.norm(value_NF, axis=1, keepdims=True), 1e-30)  # the beam may vary
    value_NF -= value_NF.mean(axis=0)
    variance_F, vector_FF = np.linalg.eigh(value_NF.T @ value_NF / len(value_NF))
    num = min(_COMPONENTS, len(value_NF) // _PATTERNS_A_COMPONENT, len(variance_F))
    variance_C = variance_F[::-1][:num]
    seen_C = variance_C > 1e-12 * max(float(variance_C[0]), 1e-300)
    component_NC: NDArray[np.float64] = (value_NF @ vector_FF[:, ::-1][:, :num][:, seen_C]) / np.sqrt(
        variance_C[seen_C]
    )
    return component_NC


def _key(number_P2: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each pair (P,), whichever of the two comes first."""
    key_P: NDArray[np.int64] = number_P2.min(axis=1) * 2**31 + number_P2.max(axis=1)
    return key_P
