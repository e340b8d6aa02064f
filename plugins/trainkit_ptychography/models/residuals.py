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

from trainkit_ptychography.scans.kind_live import LiveDiffraction

_FAR = 8.0  # robust standard deviations above the median, from which on a pattern is fitted poorly
_MUCH = 1.5  # times the median, at least
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


@torch.no_grad()
def residuals(model: Predicts, data: LiveDiffraction) -> NDArray[np.float64]:
    """Return √(Σ(√measured − √modelled)² / Σ measured) of each pattern (N,), over the pixels that count.

    0 is a perfect fit; with counts, and no other errors, it is about √(pixels that are lit / 4 · counts). NaN for a
    pattern without light.
    """
    found_N = np.full(len(data.scan.positions_N2), np.nan)
    for batch in data.some(torch.arange(len(found_N))):
        amplitudes_BYX = batch["amplitudes"]
        off_BYX = amplitudes_BYX - model(batch)["intensities"].sqrt()
        mask = batch.get("mask", data.mask_YX)
        if mask is not None:
            off_BYX = off_BYX * mask
        light_B = amplitudes_BYX.square().sum((1, 2)).double()
        ratio_B = off_BYX.square().sum((1, 2)).double() / light_B  # 0 / 0 or more / 0: without light
        ratio_B[light_B == 0] = torch.nan
        found_N[batch["index"].cpu().numpy()] = ratio_B.sqrt().cpu().numpy()
    return found_N


def poor_fits(residual_N: NDArray[np.float64]) -> list[int]:
    """Return the points whose residual is far above the others', the worst first.

    That is more than eight robust standard deviations (1.48 times the median of the deviations from the median) above
    the median, and more than 1.5 times the median.

    Example:
        >>> poor_fits(np.array([0.10, 0.11, 0.09, 0.10, 0.40, 0.10, np.nan, 0.60]))
        [7, 4]
    """
    known_N = np.isfinite(residual_N)
    if not known_N.any():
        return []
    median = float(np.median(residual_N[known_N]))
    spread = 1.4826 * float(np.median(np.abs(residual_N[known_N] - median)))
    limit = max(median + _FAR * spread, _MUCH * median)
    far = np.flatnonzero(known_N & (residual_N > limit))
    return [int(each) for each in far[np.argsort(-residual_N[far], kind="stable")]]
