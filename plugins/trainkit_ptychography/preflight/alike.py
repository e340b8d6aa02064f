"""How much likelier pairs of patterns are if they are neighbours than if they are any two.

What neighbours have in common is learned from the scan itself, for each direction in which neighbours lie, and a pair
is judged by what the other parts of the scan show. That needs no geometry and no reconstruction.

Shapes: M = scan points, T = patterns of the file, N = those that are looked at, P = pairs of points that are
neighbours, Q = pairs of any kind, F = features of a pattern, C = their principal components, S = directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.physics.canonical import Common
from trainkit_ptychography.preflight.sample import lit_part
from trainkit_ptychography.scans.neighbours import neighbours
from trainkit_ptychography.scans.patterns import Patterns

_SECTORS = 4  # directions in which neighbours lie: along both axes of a raster, and along its diagonals
_PARTS = 8  # of the scan, each of which is judged by what the others show
_FOR_THE_MEAN = 64  # patterns
_BINS = 24  # along a pattern's longer side
_COMPONENTS = 24
_PATTERNS_A_COMPONENT = 12
_PAIRS_A_COMPONENT = 3
_READ_AT_ONCE = 64
_MOST_NATS = 8.0  # that a pair may tell
_SPOILED = 0.1  # of the pairs of neighbours: these are no more alike than any two, since one did not measure well
_IN_ORDER = 0.3  # of what the neighbours in another direction have in common; 1 where steps are as long


class Neighbours:
    """Which scan points are neighbours.

    Args:
        positions_M2: Where the points are; NaN: it is not known.

    Attributes:
        pair_P2: Numbers of points that are neighbours; the second lies in about the same direction from the first,
            within a sector.
        sector_P: In which direction.
        part_P: In which part of the scan.
    """

    def __init__(self, positions_M2: NDArray[np.float64]) -> None:
        self._num = len(positions_M2)
        self._known_M = both(np.isfinite(positions_M2))
        known_K = np.flatnonzero(self._known_M)
        pair_P2 = known_K[neighbours(positions_M2[known_K])]
        step_P2 = positions_M2[pair_P2[:, 1]] - positions_M2[pair_P2[:, 0]]
        angle_P = np.arctan2(step_P2[:, 0], step_P2[:, 1])
        axis = np.angle(np.exp(_SECTORS * 1j * angle_P).mean()) / _SECTORS  # of a raster, wherever it is turned to
        sector_P = np.round((angle_P - axis) * _SECTORS / np.pi).astype(np.int64) % (2 * _SECTORS)
        self.pair_P2 = np.where(sector_P[:, None] >= _SECTORS, pair_P2[:, ::-1], pair_P2)
        self.sector_P = sector_P % _SECTORS
        last_P = self.pair_P2.max(axis=1)
        edges = np.quantile(last_P, np.linspace(0, 1, _PARTS + 1)[1:-1], method="nearest")
        self.part_P = np.searchsorted(edges, last_P, side="right")
        self._key_P = np.sort(self._key(self.pair_P2))  # of all pairs, also if fewer are kept

    def __len__(self) -> int:
        """Return the number of points."""
        return self._num

    def between(self, those_M: NDArray[np.bool_]) -> Neighbours:
        """Return the same with pairs of some points alone; which points are neighbours does not change."""
        kept, keep_P = copy(self), both(those_M[self.pair_P2])
        kept.pair_P2, kept.sector_P, kept.part_P = self.pair_P2[keep_P], self.sector_P[keep_P], self.part_P[keep_P]
        return kept

    def are(self, point_Q2: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which pairs of numbers (Q,) are those of points that are neighbours."""
        inside_Q = both((point_Q2 >= 0) & (point_Q2 < self._num))
        key_Q = np.where(inside_Q, self._key(point_Q2), -1)
        place_Q = np.minimum(np.searchsorted(self._key_P, key_Q), len(self._key_P) - 1)
        are_Q: NDArray[np.bool_] = inside_Q & (self._key_P[place_Q] == key_Q)
        return are_Q

    def are_known(self, point_Q2: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return of which pairs of numbers (Q,) it is known where both points are."""
        inside_Q2 = (point_Q2 >= 0) & (point_Q2 < self._num)
        return both(inside_Q2 & self._known_M[np.clip(point_Q2, 0, self._num - 1)])

    def _key(self, point_Q2: NDArray[np.int64]) -> NDArray[np.int64]:
        key_Q: NDArray[np.int64] = point_Q2.min(axis=1) * self._num + point_Q2.max(axis=1)
        return key_Q


Learned = Mapping[tuple[int, int], Common]
"""What neighbours have in common, for each direction and part of the scan by what the other parts show."""


class Likeness(NamedTuple):
    """Tells how alike patterns are.

    Attributes:
        neighbours: The points that are neighbours.
        component_NC: Principal components of the patterns that are looked at, of variance 1.
        place_T: Which of these patterns has a number in the file; -1: none.
    """

    neighbours: Neighbours
    component_NC: NDArray[np.float64]
    place_T: NDArray[np.int64]

    def learn(self, pattern_P2: NDArray[np.int64]) -> Learned:
        """Return what neighbours have in common if these are the patterns of each pair of points; -1: it has none."""
        return dict(self._learn(self._places(pattern_P2)))

    def _learn(self, place_P2: NDArray[np.int64]) -> Iterator[tuple[tuple[int, int], Common]]:
        there_P, fewest = both(place_P2 >= 0), _PAIRS_A_COMPONENT * self.component_NC.shape[1]
        for sector in range(_SECTORS):
            of_sector_P = there_P & (self.neighbours.sector_P == sector)
            parts = [of_sector_P & (self.neighbours.part_P == part) for part in range(_PARTS)]
            counts = [int(each.sum()) for each in parts]
            if sum(counts) - max(counts) < fewest:
                continue
            products = [self.component_NC[place_P2[each, 0]].T @ self.component_NC[place_P2[each, 1]] for each in parts]
            whole_CC = np.sum(products, axis=0)
            for part, (product_CC, count) in enumerate(zip(products, counts, strict=True)):
                num = sum(counts) - count
                yield (sector, part), Common.of((whole_CC - product_CC) / num, num)

    def nats(self, pattern_P2: NDArray[np.int64], learned: Learned) -> NDArray[np.float64]:
        """Return the logarithm of how much likelier patterns are at a pair of neighbours (P,); 0 where nothing tells.

        Args:
            pattern_P2: A pair of patterns for each pair of points; -1: there is none.
            learned: What neighbours have in common.
        """
        nats_P = np.minimum(np.nan_to_num(self._figures(pattern_P2, learned, Common.nats)), _MOST_NATS)
        likely_P: NDArray[np.float64] = np.log((1 - _SPOILED) * np.exp(nats_P) + _SPOILED)
        return likely_P

    def alike(self, pattern_P2: NDArray[np.int64], learned: Learned) -> NDArray[np.float64]:
        """Return how alike they are (P,), on average 1 if they are neighbours, 0 if they are any two; NaN: unknown."""
        return self._figures(pattern_P2, learned, Common.alike)

    def is_in_order(self, learned: Learned) -> bool:
        """Return whether patterns that follow each other have about as much in common as other neighbours have.

        Where they have not, points are visited in another order than is told, as if every second column of a raster
        were reversed, and moving patterns mends nothing. Where few neighbours follow each other, this says nothing.
        """
        follows_P = np.abs(np.diff(self.neighbours.pair_P2, axis=1))[:, 0] == 1
        number_S = np.bincount(self.neighbours.sector_P[follows_P], minlength=_SECTORS)
        along = int(number_S.argmax())
        if number_S[along] < len(self.component_NC) / 2:
            return True
        strength_S = np.zeros(_SECTORS)
        for (sector, _), common in learned.items():
            strength_S[sector] += float(np.square(common.correlation_C).sum()) / _PARTS
        return bool(strength_S[along] >= _IN_ORDER * strength_S.max())

    def _places(self, pattern_P2: NDArray[np.int64]) -> NDArray[np.int64]:
        places_P2: NDArray[np.int64] = np.where(pattern_P2 >= 0, self.place_T[pattern_P2], -1)
        return places_P2

    def _figures(
        self, pattern_P2: NDArray[np.int64], learned: Learned, figure: Callable[..., NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        place_P2 = self._places(pattern_P2)
        found_P, there_P = np.full(len(place_P2), np.nan), both(place_P2 >= 0)
        for (sector, part), common in learned.items():
            mine_P = np.flatnonzero(there_P & (self.neighbours.sector_P == sector) & (self.neighbours.part_P == part))
            found_P[mine_P] = figure(common, *(self.component_NC[place_P2[mine_P, each]] for each in (0, 1)))
        return found_P


def both(holds_Q2: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for which pairs (Q,) something holds for both."""
    return holds_Q2[:, 0] & holds_Q2[:, 1]


def components(patterns: Patterns, read_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return principal components (N, C), of variance 1, of the roots of some patterns' light, in a few bins."""
    some = read_N[np.linspace(0, len(read_N) - 1, min(_FOR_THE_MEAN, len(read_N))).round().astype(np.int64)]
    mean_YX = np.nan_to_num(np.asarray(patterns[some], np.float64)).mean(axis=0)
    lit_2 = lit_part(mean_YX)
    rows, columns = ((np.arange(lit) - lit // 2) % size for lit, size in zip(lit_2, mean_YX.shape, strict=True))
    down, right = (np.arange(0, lit, -(-max(lit_2) // _BINS)) for lit in lit_2)
    value_NF = np.empty((len(read_N), len(down) * len(right)), np.float32)  # doubles would be as large as small scans
    for those in _blocks(read_N):
        part = np.nan_to_num(np.asarray(patterns[read_N[those]], np.float64))
        part = np.add.reduceat(part[:, rows[:, None], columns], down, axis=1)
        part = np.sqrt(np.maximum(np.add.reduceat(part, right, axis=2), 0)).reshape(len(part), -1)
        value_NF[those] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-30)  # the beam may vary
    mean_F = value_NF.mean(axis=0, dtype=np.float64)
    covariance_FF = np.zeros((len(mean_F), len(mean_F)))
    for those in _blocks(read_N):
        part = value_NF[those] - mean_F
        covariance_FF += part.T @ part / len(read_N)
    variance_F, vector_FF = np.linalg.eigh(covariance_FF)
    num = min(_COMPONENTS, len(read_N) // _PATTERNS_A_COMPONENT, len(variance_F))
    variance_C = variance_F[::-1][:num]
    seen_C = variance_C > 1e-12 * max(float(variance_C[0]), 1e-300)
    whitening_FC = vector_FF[:, ::-1][:, :num][:, seen_C] / np.sqrt(variance_C[seen_C])
    return np.concatenate([(value_NF[those] - mean_F) @ whitening_FC for those in _blocks(read_N)])


def _blocks(read_N: NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices that hold all patterns, of as many as are read at once."""
    for start in range(0, len(read_N), _READ_AT_ONCE):
        yield slice(start, start + _READ_AT_ONCE)
