"""What two vectors of random values have in common, and how much likelier a pair of them is for it.

Shapes: P = pairs, C = components of a vector, whose values have variance 1 and do not correlate.

Source:
    Hotelling, Biometrika 28 (1936) 321.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_STRONGEST = 0.95  # correlation that is believed


class Common(NamedTuple):
    """Canonical correlations: combinations of the first vector's components, each with the one of the second's.

    Attributes:
        first_CC: Combinations of the first vector's components, as columns: those that have anything in common.
        second_CC: Those of the second one's.
        correlation_C: How they correlate.
    """

    first_CC: NDArray[np.float64]
    second_CC: NDArray[np.float64]
    correlation_C: NDArray[np.float64]

    @classmethod
    def of(cls, product_CC: NDArray[np.float64], num: int) -> Common:
        """Return what the mean of first ⊗ second over so many pairs tells, less what accidents make of it."""
        first_CC, correlation_C, second_CC = np.linalg.svd(product_CC)
        by_accident = np.sqrt(len(product_CC) / num)
        more_C = correlation_C > by_accident
        correlation_C = np.minimum(correlation_C[more_C] - by_accident, _STRONGEST)
        return cls(first_CC[:, more_C], second_CC.T[:, more_C], correlation_C)

    def nats(self, first_PC: NDArray[np.float64], second_PC: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithm (P,) of how much likelier pairs of normal values are with the correlations.

        Example:
            >>> common = Common(np.eye(1), np.eye(1), np.array([0.8]))
            >>> common.nats(np.array([[1.0], [1.0]]), np.array([[1.0], [-1.0]])).round(2).tolist()
            [0.96, -3.49]
        """
        first_PC, second_PC, r_C = first_PC @ self.first_CC, second_PC @ self.second_CC, self.correlation_C
        left_C = 1 - r_C**2
        exponent_PC = (2 * r_C * first_PC * second_PC - r_C**2 * (first_PC**2 + second_PC**2)) / (2 * left_C)
        nats_P: NDArray[np.float64] = (exponent_PC - 0.5 * np.log(left_C)).sum(axis=1)
        return nats_P

    def alike(self, first_PC: NDArray[np.float64], second_PC: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how alike pairs are (P,): on average 1 where they have this in common, 0 where they have nothing."""
        product_PC = (first_PC @ self.first_CC) * (second_PC @ self.second_CC)
        alike_P: NDArray[np.float64] = product_PC @ self.correlation_C
        return alike_P / max(float(self.correlation_C @ self.correlation_C), 1e-30)
