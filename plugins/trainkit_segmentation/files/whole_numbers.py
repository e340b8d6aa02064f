"""Label values as whole numbers, exactly, whatever type they are stored in."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_NEARLY = 1e-3  # values that are off a whole number by at most this much are rounded
_SIGNED, _UNSIGNED = range(-(1 << 63), 1 << 63), range(1 << 64)
_MOST_WRONG_CLASSES = 10  # values that are not whole: if there are more, they come from interpolation


def whole_numbers(stored: Array, slope: float | None, intercept: float | None) -> tuple[Array, float]:
    """Return ``slope * stored + intercept`` as whole numbers, and how far they were off.

    Args:
        stored: Values as a file stores them, integers or floating point.
        slope: None: 1.
        intercept: None: 0.

    Returns:
        Integers: of the stored type if they are not scaled, else int64, or uint64 where a value needs it.

    Raises:
        ValueError: Values are not finite, not whole, or need more than 64 bits. The message is about "the label".
    """
    factor, offset = slope if slope is not None else 1.0, intercept if intercept is not None else 0.0
    if stored.dtype.kind in "iu":
        if (factor, offset) == (1.0, 0.0):
            return stored, 0.0
        if factor.is_integer() and offset.is_integer():
            return _scaled(stored, int(factor), int(offset)), 0.0
    with np.errstate(all="ignore"):
        values = stored.astype(np.float64) * factor + offset
        if nan := int(np.isnan(values).sum()):
            raise ValueError(f"{nan} of {values.size} voxels of the label are NaN")
        whole = np.rint(values)
        off = np.abs(values - whole)  # NaN where infinite
    dtype = _smallest(float(whole.min()), float(whole.max()))
    if (wrong := off > _NEARLY).any():
        raise ValueError(_not_whole(values[wrong], values.size))
    return whole.astype(dtype), float(off.max())


def _scaled(stored: Array, factor: int, offset: int) -> Array:
    """Scale integers by integers. The arithmetic is modulo 2^64, so it is exact if the result has 64 bits."""
    ends = [int(end) * factor + offset for end in (stored.min(), stored.max())]
    dtype = _smallest(min(ends), max(ends))
    wide = stored.astype(np.uint64 if stored.dtype.kind == "u" else np.int64).view(np.uint64)
    return (wide * np.uint64(factor % (1 << 64)) + np.uint64(offset % (1 << 64))).view(dtype)


def _smallest(lowest: float, highest: float) -> type[np.int64] | type[np.uint64]:
    if lowest >= _SIGNED.start and highest < _SIGNED.stop:
        return np.int64
    if lowest >= 0 and highest < _UNSIGNED.stop:
        return np.uint64
    raise ValueError(f"the label has values that need more than 64 bits: {lowest:g} to {highest:g}")


def _not_whole(wrong: Array, size: int) -> str:
    different = len(np.unique(np.round(wrong, 4)))
    count = f"{len(wrong)} of {size} voxels of the label are not whole numbers"
    examples = ", ".join(list(dict.fromkeys(f"{value:.4g}" for value in wrong[:50].tolist()))[:3])
    if different > _MOST_WRONG_CLASSES:
        return (
            f"{count}, for example {examples}: it was interpolated, as if it were an image, or is none. Resample "
            "the original label to the nearest voxel; for a mask of one class, save values >= 0.5 as 1 and others as 0"
        )
    return (
        f"{count}, for example {examples}: save the label in an integer type, as whole numbers, or correct the "
        "slope in its header"
    )
