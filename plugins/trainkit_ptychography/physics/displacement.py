"""By how much an image is displaced against another one, where each shows a part of the same plane.

Shapes: H, W = rows and columns of an image, K, L = rows and columns of displacements.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

_LEAST_SHARE = 0.25  # of the smaller image, that both must show
_NEAR = 3  # pixels around a maximum that belong to it


@attrs.frozen(eq=False)
class Shown:
    """A part of a plane.

    Attributes:
        values_HW: What it shows, with a mean of about 0.
        seen_HW: Where.
        origin_2: Place of its pixel [0, 0] in the plane, in pixels.
    """

    values_HW: NDArray[np.float64]
    seen_HW: NDArray[np.bool_]
    origin_2: NDArray[np.float64]


class Displacement(NamedTuple):
    """How an image lies against another one.

    Attributes:
        displacement_2: By how many pixels what the second one shows lies further along rows and columns.
        correlation: Pearson's r there.
        as_told: Pearson's r if it is not displaced; NaN: the two do not show enough of the same place.
        elsewhere: The largest r at any other place.
        spread: Root mean square of r over all displacements.
    """

    displacement_2: tuple[float, float]
    correlation: float
    as_told: float
    elsewhere: float
    spread: float


def displacement(one: Shown, other: Shown) -> Displacement | None:
    """Return at which displacement two images correlate best; None: they never show enough of the same place.

    Source:
        Padfield, IEEE Trans. Image Process. 21 (2012) 2706 (normalised correlation of masked images).
    """
    shape = tuple(a + b - 1 for a, b in zip(one.values_HW.shape, other.values_HW.shape, strict=True))

    def correlated(first_HW: NDArray[np.floating], second_HW: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return Σ first(x) second(x + d) for all d; d = 0 is at [0, 0]."""
        product_KL = np.fft.rfft2(first_HW, shape).conj() * np.fft.rfft2(second_HW, shape)
        found_KL: NDArray[np.float64] = np.fft.irfft2(product_KL, shape)
        return found_KL

    masks = [np.asarray(each.seen_HW, np.float64) for each in (one, other)]
    a_HW, b_HW = (each.values_HW * mask_HW for each, mask_HW in zip((one, other), masks, strict=True))
    number_KL = correlated(masks[0], masks[1]).round()
    enough_KL = number_KL >= max(_LEAST_SHARE * min(mask_HW.sum() for mask_HW in masks), 1.0)
    if not enough_KL.any():
        return None
    safe_KL = np.maximum(number_KL, 1.0)
    sum_a_KL, sum_b_KL = correlated(a_HW, masks[1]), correlated(masks[0], b_HW)
    spread_a_KL = correlated(a_HW**2, masks[1]) - sum_a_KL**2 / safe_KL
    spread_b_KL = correlated(masks[0], b_HW**2) - sum_b_KL**2 / safe_KL
    bottom_KL = np.sqrt(np.maximum(spread_a_KL, 0) * np.maximum(spread_b_KL, 0))
    enough_KL &= bottom_KL > 1e-6 * bottom_KL.max()
    r_KL = np.where(
        enough_KL, (correlated(a_HW, b_HW) - sum_a_KL * sum_b_KL / safe_KL) / np.maximum(bottom_KL, 1e-300), 0
    )
    peak = np.unravel_index(int(r_KL.argmax()), r_KL.shape)
    place_2 = [
        int(at) if at < size else int(at) - whole
        for at, size, whole in zip(peak, other.values_HW.shape, shape, strict=True)
    ]
    finer_2 = (_top(r_KL[:, peak[1]], int(peak[0])), _top(r_KL[peak[0]], int(peak[1])))
    off_2 = other.origin_2 - one.origin_2
    told = tuple(int(each) for each in np.rint(-off_2).astype(int))
    reachable = all(-a < at < b for at, a, b in zip(told, one.values_HW.shape, other.values_HW.shape, strict=True))
    as_told = float(r_KL[told]) if reachable and enough_KL[told] else float("nan")
    rows_K, columns_L = (np.arange(whole) for whole in shape)
    far_KL = np.maximum(_apart(rows_K, int(peak[0]), shape[0])[:, None], _apart(columns_L, int(peak[1]), shape[1]))
    others_KL = r_KL[enough_KL & (far_KL > _NEAR)]
    return Displacement(
        (float(place_2[0] + finer_2[0] + off_2[0]), float(place_2[1] + finer_2[1] + off_2[1])),
        float(r_KL[peak]),
        as_told,
        float(others_KL.max(initial=0.0)),
        float(np.sqrt(np.square(others_KL).mean())) if len(others_KL) else 0.0,
    )


def _apart(places_K: NDArray[np.int64], place: int, whole: int) -> NDArray[np.int64]:
    distance_K = np.abs(places_K - place)
    shorter_K: NDArray[np.int64] = np.minimum(distance_K, whole - distance_K)
    return shorter_K


def _top(values_K: NDArray[np.float64], place: int) -> float:
    """Return by how much the maximum of the parabola through three values is off the middle one."""
    before, here, after = (float(values_K[(place + each) % len(values_K)]) for each in (-1, 0, 1))
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
