"""The look at light that no wave explains, and at light that varies, which ``check --data`` takes.

Shapes: N = patterns that are looked at, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainkit import Problem, percent_in_words

if TYPE_CHECKING:
    from trainkit_ptychography.scans.kind import DiffractionData

_LOOKED_AT = 64
_DARK = 5.0  # percent of the patterns, that may be darker in a pixel than its background


def inspect_background(data: DiffractionData, start_share: float) -> Iterator[str | Problem]:
    """Yield how strong a background can be at most, and a doubt if it begins stronger.

    Raises:
        DataError: The scan cannot be read.
    """
    some_NYX = _some(data)
    dark_YX = np.percentile(some_NYX, _DARK, axis=0)
    room = float(dark_YX.sum() / max(float(some_NYX.mean(axis=0).sum()), 1e-30))
    yield (
        f"background   patterns leave room for {100 * room:.3g} % of their light at most (the darkest {_DARK:g} % of "
        f"{len(some_NYX)} patterns in each pixel)"
    )
    if start_share > max(room, 1e-6):
        yield Problem(
            f"= {start_share:g} is more light than patterns leave room for ({room:.2g}): lower it",
            "background.start_share",
            "warning",
        )


def inspect_intensities(data: DiffractionData) -> Iterator[str]:
    """Yield by how much the light of patterns varies.

    Raises:
        DataError: The scan cannot be read.
    """
    totals_N = _some(data).sum(axis=(1, 2))
    mean = max(float(totals_N.mean()), 1e-30)
    yield (
        f"light        totals of {len(totals_N)} patterns vary by {percent_in_words(float(totals_N.std()) / mean)} "
        f"(standard deviation; that of counting is {percent_in_words(1 / sqrt(mean))}, if these are counts)"
    )


def _some(data: DiffractionData) -> NDArray[np.float64]:
    """Return some patterns, 0 where they do not count."""
    patterns, scan = data.read()
    chosen = np.unique(np.linspace(0, len(patterns) - 1, _LOOKED_AT).round().astype(np.int64))
    some_NYX: NDArray[np.float64] = np.nan_to_num(np.asarray(patterns[chosen], np.float64))
    return some_NYX if scan.mask_YX is None else some_NYX * scan.mask_YX
