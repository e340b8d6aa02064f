"""From patterns to an object in one go: a method's blurred phase, sharpened as far as this makes patterns fit better.

Shapes: N = scan points, T = those that the sharpness is chosen by, S = scans that have probes of their own, M = probe
modes, Y, X = rows and columns of the detector, H, W = those of the object.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import DataError
from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.direct.kind import Blurred, DirectMethod
from trainkit_ptychography.direct.spectrum import on_frequencies_of
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.physics.patches import crop

_FEWEST = 9  # scan points
_STRENGTHS = (5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 5e-1)  # of the Wiener filter, as shares of the largest transfer
_SCALES = (0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_NEARLY = 0.1  # of what the best fit gains over an empty object: a sharper phase may fit worse by that much
_TRIED = 32  # patterns; more would leave holes in the scan that the rest is made from


@attrs.frozen(eq=False)
class DirectStart:
    """An object that patterns gave in one go.

    Attributes:
        phase_HW: Its phase in rad.
        strength: Of the Wiener filter that sharpened it, as a share of the largest transfer.
        scale: By what its phase was multiplied so that patterns fit best.
        num: Number of patterns that it was made from.
        cpu_seconds: What it took.
    """

    phase_HW: NDArray[np.float64]
    strength: float
    scale: float
    num: int
    cpu_seconds: float


@torch.no_grad()
def start(method: DirectMethod, seen: Sequence[Evidence]) -> DirectStart:
    """Make an object.

    Args:
        method: How.
        seen: The patterns of each scan that has a probe of its own; most often one.

    Raises:
        DataError: There are too few patterns, or the method cannot be used with them.
    """
    begun = time.process_time()
    num = sum(len(each.points_N) for each in seen)
    if num < _FEWEST:
        raise DataError(
            f"{seen[0].data.scan.source}: an object cannot be made from {num} patterns in one go (at least {_FEWEST}): "
            'leave out object = { use = "from_data" }'
        )
    if (scan := seen[0].data.scan).detector_propagation.patterns_are_images:
        raise DataError(
            f"{scan.source}: direct methods need a detector in the far field, and this one is not: leave out "
            'object = { use = "from_data" }'
        )
    made = [method.build(each) for each in seen]
    parts = [_apart(each, num) for each in seen]
    most = [live.sums(rest_N) for live, (rest_N, _) in zip(made, parts, strict=True)]
    tried = [(each, tried_T) for each, (_, tried_T) in zip(seen, parts, strict=True) if len(tried_T)]
    spectrum = _Spectrum([live.blurred(_array(sums)) for live, sums in zip(made, most, strict=True)])
    strength = _chosen(spectrum, tried)
    whole = [
        live.blurred(_array(sums + live.sums(tried_T)))
        for live, sums, (_, tried_T) in zip(made, most, parts, strict=True)
    ]
    phase_HW = _Spectrum(whole).sharpened(strength)
    _, scale = min((_misfit(each * phase_HW, tried), each) for each in _SCALES)
    phase_HW = scale * phase_HW
    return DirectStart(phase_HW, strength, scale, num, time.process_time() - begun)


def _chosen(spectrum: _Spectrum, tried: Sequence[tuple[Evidence, Tensor]]) -> float:
    """Return how strong the filter is.

    What patterns hardly hold has little say in how they fit, although it can be seen in the phase. So the weakest
    filter is taken that fits nearly as well as the best.
    """
    fits = {
        strength: min(_misfit(scale * spectrum.sharpened(strength), tried) for scale in _SCALES)
        for strength in _STRENGTHS
    }
    best, empty = min(fits.values()), _misfit(0.0 * spectrum.sharpened(1.0), tried)
    return next(each for each in _STRENGTHS if fits[each] <= best + _NEARLY * max(empty - best, 0.0))


def _array(sums_CHW: Tensor) -> NDArray[np.float64]:
    return sums_CHW.cpu().double().numpy()


def _apart(seen: Evidence, num: int) -> tuple[Tensor, Tensor]:
    """Return most of the points, and a few by which the sharpness is chosen, evenly spread."""
    share = len(seen.points_N) / num
    wanted = max(1, round(min(_TRIED, num // 8 + 1) * share))
    chosen = torch.linspace(0, len(seen.points_N) - 1, wanted + 2).round().long()[1:-1]
    apart = torch.zeros(len(seen.points_N), dtype=torch.bool)
    apart[chosen] = True
    return seen.points_N[~apart], seen.points_N[apart]


class _Spectrum:
    """A blurred phase of one or several scans, to be sharpened with any strength."""

    def __init__(self, parts: Sequence[Blurred]) -> None:
        weight_HW = sum(each.weight_HW for each in parts)
        shares = [each.weight_HW / np.maximum(weight_HW, 1e-30) for each in parts]
        phase_HW = np.sum([share_HW * each.phase_HW for share_HW, each in zip(shares, parts, strict=True)], axis=0)
        shares_of_all = np.array([each.weight_HW.sum() for each in parts])
        power_YX = np.average([each.power_YX for each in parts], axis=0, weights=shares_of_all)
        self._blurred_HW = np.fft.fft2(phase_HW)
        self._power_HW = np.maximum(on_frequencies_of(phase_HW.shape, power_YX).real, 0.0)

    def sharpened(self, strength: float) -> NDArray[np.float64]:
        """Return the phase (H, W) in rad; its mean is 0."""
        sharp_HW = self._blurred_HW / (self._power_HW + strength * self._power_HW.max())
        sharp_HW[0, 0] = 0  # no pattern tells the mean phase
        phase_HW: NDArray[np.float64] = np.fft.ifft2(sharp_HW).real
        return phase_HW


def _misfit(phase_HW: NDArray[np.float64], tried: Sequence[tuple[Evidence, Tensor]]) -> float:
    """Return the misfit of the amplitudes of some patterns, with the common factor that fits best."""
    power = overlap = total = 0.0
    for seen, points_T in tried:
        on_device_HW = torch.from_numpy(phase_HW).to(seen.data.device, seen.data.dtype)
        start = 0
        for batch in seen.data.some(points_T):
            measured_BYX = batch["amplitudes"]
            corner_B2, shift_B2 = seen.patches(points_T[start : start + len(measured_BYX)])
            start += len(measured_BYX)
            phase_BYX = crop(on_device_HW, corner_B2, seen.data.detector_shape)
            patch_BYX = torch.polar(torch.ones_like(phase_BYX), phase_BYX)
            expected_BYX = intensities(seen.probe_MYX, shift_B2, patch_BYX).clamp_min(0).sqrt()
            mask = batch.get("mask", seen.data.mask_YX)
            if mask is not None:
                expected_BYX = expected_BYX * mask
            power += float(expected_BYX.square().sum())
            overlap += float((expected_BYX * measured_BYX).sum())
            total += float(measured_BYX.square().sum())
    return total - overlap**2 / max(power, 1e-30)
