"""How far modelled patterns are from measured ones.

Shapes: N = scan points, B = patterns of a batch, K = chosen patterns, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.preflight.noise import noise_of
from trainkit_ptychography.scans.kind_live import LiveDiffraction

_FAR = 8.0  # robust standard deviations above the median, from which on a pattern is fitted poorly
_MUCH = 1.5  # times the median, at least
_MOST = 1000  # patterns that are compared with their neighbours
_NEIGHBOURS = 8
_SHOWN = 4  # patterns


class Predicts(Protocol):
    """A model that gives ``intensities`` (B, Y, X) for the scan points ``batch["index"]``."""

    def __call__(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what the detector is expected to measure."""
        ...


class SomePatterns(NamedTuple):
    """Measured and modelled patterns of a few scan points.

    Attributes:
        points: The scan points.
        measured_KYX: Measured intensities in the unit of the file, zero frequency at [0, 0]; 0 where they do not count.
        modelled_KYX: Modelled ones.
        mask_KYX: Which pixels count; None: all.
    """

    points: tuple[int, ...]
    measured_KYX: NDArray[np.floating]
    modelled_KYX: NDArray[np.floating]
    mask_KYX: NDArray[np.bool_] | None


@torch.no_grad()
def some_patterns(model: Predicts, data: LiveDiffraction) -> SomePatterns:
    """Return the patterns of four scan points, which are always the same ones, evenly spread over the scan's order."""
    num = len(data.scan.positions_N2)
    points_K = torch.unique((torch.arange(_SHOWN) + 0.5).mul(num / _SHOWN).long().clamp_max(num - 1))
    measured, modelled, masks = [], [], []
    for batch in data.some(points_K):
        measured.append(batch["amplitudes"].square())
        modelled.append(model(batch)["intensities"])
        mask = batch.get("mask", data.mask_YX)
        masks.append(None if mask is None else mask.expand_as(measured[-1]))
    all_masks = [each for each in masks if each is not None]
    arrays = [data.mean_counts * torch.cat(each).double().cpu().numpy() for each in (measured, modelled)]
    mask_KYX = torch.cat(all_masks).cpu().numpy() if all_masks else None
    return SomePatterns(tuple(points_K.tolist()), arrays[0], arrays[1], mask_KYX)


class Residuals(NamedTuple):
    """How far each modelled pattern is from the measured one, over the pixels that count.

    Attributes:
        of_all_N: √(Σ(√measured − √modelled)² / Σ measured): 0 is a perfect fit. NaN for a pattern without light.
        of_noise_N: What counting noise alone makes of it, on average, if the modelled pattern is the right one; None:
            it was not asked for.
    """

    of_all_N: NDArray[np.float64]
    of_noise_N: NDArray[np.float64] | None = None


@torch.no_grad()
def residuals(model: Predicts, data: LiveDiffraction, electrons: float | None = None) -> Residuals:
    """Return how far each modelled pattern is from the measured one.

    Args:
        model: Gives the patterns.
        data: The data.
        electrons: How many make an intensity of 1; then the residual that counting noise makes is found too.
    """
    found_N = np.full(len(data.scan.positions_N2), np.nan)
    of_noise_N = np.full(len(found_N), np.nan)
    for batch in data.some(torch.arange(len(found_N))):
        amplitudes_BYX = batch["amplitudes"]
        expected_BYX = model(batch)["intensities"]
        off_BYX = amplitudes_BYX - expected_BYX.sqrt()
        mask = batch.get("mask", data.mask_YX)
        if mask is not None:
            off_BYX = off_BYX * mask
        light_B = amplitudes_BYX.square().sum((1, 2)).double()
        ratio_B = off_BYX.square().sum((1, 2)).double() / light_B  # 0 / 0 or more / 0: without light
        ratio_B[light_B == 0] = torch.nan
        index_B = batch["index"].cpu().numpy()
        found_N[index_B] = ratio_B.sqrt().cpu().numpy()
        if electrons is not None:
            noise_B = noise_of(expected_BYX, mask, electrons)
            of_noise_N[index_B] = np.sqrt(noise_B / np.where(light_B.cpu() > 0, light_B.cpu(), np.nan))
    return Residuals(found_N, None if electrons is None else of_noise_N)


def poor_fits(residual_N: NDArray[np.float64], positions_N2: NDArray[np.float64]) -> list[int]:
    """Return the points whose residual is far above all others' and their neighbours', the worst first.

    That is: above the median by eight robust standard deviations (1.48 times the median of the deviations from the
    median) and by half, and above three quarters of the eight nearest points by half. Where a specimen is hard to fit,
    neighbours, which see nearly the same of it, are fitted badly as well; a frame that failed stands alone.

    Args:
        residual_N: The residuals; NaN where there is none.
        positions_N2: Where the points are.
    """
    known_N = np.isfinite(residual_N)
    if not known_N.any():
        return []
    median = float(np.median(residual_N[known_N]))
    spread = 1.4826 * float(np.median(np.abs(residual_N[known_N] - median)))
    far = np.flatnonzero(known_N & (residual_N > max(median + _FAR * spread, _MUCH * median)))
    worst = far[np.argsort(-residual_N[far], kind="stable")][:_MOST]
    return [int(point) for point in worst if residual_N[point] > _MUCH * _around(int(point), residual_N, positions_N2)]


def _around(point: int, residual_N: NDArray[np.float64], positions_N2: NDArray[np.float64]) -> float:
    """Return what three quarters of the residuals of the nearest points are below."""
    away_N = np.hypot(*(positions_N2 - positions_N2[point]).T)
    away_N[point] = np.inf
    away_N[~np.isfinite(residual_N)] = np.inf
    nearest = np.argsort(away_N, kind="stable")[: min(_NEIGHBOURS, len(away_N) - 1)]
    return float(np.percentile(residual_N[nearest], 75)) if len(nearest) else 0.0
