"""Arrays as files have them, brought to the shapes of a `Scan`.

Shapes: N = scan points, Y, X = rows and columns of the detector, M = probe modes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError


def as_points(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Return points (N, 2) out of (…, 2), or out of (2, N)."""
    if array.ndim == 2 and array.shape[0] == 2 != array.shape[1]:
        array = array.T
    if array.ndim < 2 or array.shape[-1] != 2 or np.iscomplexobj(array):
        raise DataError(
            f"{name} must be (points, 2), a row and a column each; it is {array.dtype} of shape {array.shape}"
        )
    return array.reshape(-1, 2).astype(np.float64)


def as_probe(array: NDArray[Any], name: str, axes: str | None = None) -> NDArray[np.complexfloating]:
    """Return modes (M, Y, X) out of (…, Y, X), or of axes in the order that ``axes`` says, for example "mxy".

    Raises:
        DataError: It is not complex, or has other axes.
    """
    if array.ndim < 2 or not np.iscomplexobj(array):
        raise DataError(
            f"{name} must be complex, (rows, columns) or (modes, rows, columns); it is {array.dtype} of shape "
            f"{array.shape}. If it is a vacuum pattern, say so, and its phase is made from the aberrations: "
            'model.probe = { use = "vacuum", path = …, name = …, defocus_angstrom = … }, and take data.probe out'
        )
    if axes is not None:
        while array.ndim > len(axes) and 1 in array.shape:
            array = array.squeeze(array.shape.index(1))
        if array.ndim == 2 and len(axes) == 3:  # of one mode
            axes = axes.replace("m", "")
        if array.ndim != len(axes):
            raise DataError(f'{name} has the shape {array.shape}, so "{axes}" must have {array.ndim} letters')
        array = array.transpose([axes.index(letter) for letter in "myx" if letter in axes])
    return array.reshape(-1, *array.shape[-2:])
