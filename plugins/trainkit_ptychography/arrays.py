"""Arrays as files have them, brought to the shapes of a `Scan`.

Shapes: N = scan points, Y, X = rows and columns of the detector, M = probe modes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError


def as_patterns(array: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Return real patterns (N, Y, X) out of (…, Y, X); the axes before are those of the scan, or of length 1.

    Args:
        array: Any numbers.
        name: What messages call it.
    """
    if array.ndim < 3 or np.iscomplexobj(array):
        raise DataError(
            f"{name} must be real, (points, rows, columns) or (scan rows, scan columns, rows, columns); it is "
            f"{array.dtype} of shape {array.shape}"
        )
    if sum(size > 1 for size in array.shape[:-2]) > 2:
        raise DataError(
            f"{name} has the shape {array.shape}: more than two axes before the detector's are not of length 1"
        )
    return np.ascontiguousarray(array.reshape(-1, *array.shape[-2:]), dtype=np.float32)


def as_points(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Return points (N, 2) out of (…, 2)."""
    if array.ndim < 2 or array.shape[-1] != 2 or np.iscomplexobj(array):
        raise DataError(
            f"{name} must be (points, 2), a row and a column each; it is {array.dtype} of shape {array.shape}"
        )
    return array.reshape(-1, 2).astype(np.float64)


def as_probe(array: NDArray[Any], name: str) -> NDArray[np.complexfloating]:
    """Return modes (M, Y, X) out of (…, Y, X)."""
    if array.ndim < 2 or not np.iscomplexobj(array):
        raise DataError(
            f"{name} must be complex, (rows, columns) or (modes, rows, columns); it is {array.dtype} of shape "
            f"{array.shape}"
        )
    return array.reshape(-1, *array.shape[-2:])
