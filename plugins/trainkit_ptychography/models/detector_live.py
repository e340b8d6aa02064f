"""What the detector makes of the light that arrives: blur, a background, and what varies from pattern to pattern.

    counts = intensity of the pattern · (1 − share of the background) · blurred light + background

Shapes: N = scan points, P = those of a scan, T = those of them that are trained on, B = patterns of a batch, Y, X =
rows and columns of the detector, V, U = those of the nodes of a background.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainkit_ptychography.physics.detector import blurred, convolved
from trainkit_ptychography.scans.kind_live import LiveDiffraction

if TYPE_CHECKING:
    from trainkit_ptychography.models.background import Background

_LEAST_LIGHT = 0.05  # of the light that the probe has, however strong the background
_DIMMEST = 1e-3  # intensity of a pattern, against the mean


class Detector(nn.Module):
    """The detector, and how far away it is.

    Attributes:
        background: (V, U) roots of the background at its nodes, in units of the root of a mean pixel's intensity; None:
            there is none.
        pattern_intensities: (N,) factor of the light of each pattern, 1 in the mean of a scan; None: all are 1.
        distance: Change of the effective distance in percent, of the near field; None: it stays as it is told.
    """

    def __init__(
        self,
        data: LiveDiffraction,
        blur_YX: Tensor | None = None,
        background: Background | None = None,
        intensities_vary: bool = False,
        distance_varies: bool = False,
    ) -> None:
        super().__init__()
        self._blur_YX, like = blur_YX, torch.empty(0, dtype=data.dtype, device=data.device)
        self._propagation = data.scan.detector_propagation
        self._wave = data.scan.exit_wave(data.detector_shape)
        self._complex = torch.complex64 if data.dtype == torch.float32 else torch.complex128
        transfer_YX = self._propagation.transfer(self._wave)
        self._transfer_YX = None if transfer_YX is None else transfer_YX.to(data.device, self._complex)
        self.distance = nn.Parameter(like.new_zeros(())) if distance_varies else None
        self.background = None
        if background is not None:
            self._counted_YX = torch.ones(data.detector_shape).to(like)
            if data.scan.mask_YX is not None:
                self._counted_YX = torch.from_numpy(data.scan.mask_YX).to(like)
            self._mean_pixel = 1 / float(self._counted_YX.sum())
            self._along_YV, self._along_XU = (
                between_nodes(size, background.spacing_pixels).to(like) for size in data.detector_shape
            )
            shape = (self._along_YV.shape[1], self._along_XU.shape[1])
            self.background = nn.Parameter(like.new_full(shape, background.start_share**0.5))
        self.pattern_intensities = None
        if intensities_vary:
            self.pattern_intensities = nn.Parameter(like.new_ones(len(data.scan.positions_N2)))
            self._scans = [points_P.to(data.device) for points_P in _scans(data)]
            trained = [points_P[torch.isin(points_P, data.train_index)] for points_P in _scans(data)]
            self._trained = [points_T.to(data.device) for points_T in trained]

    def transfer(self) -> Tensor | None:
        """Return the factor of the exit wave's Fourier transform on its way to the detector; None: the far field."""
        if self.distance is None:
            return self._transfer_YX
        stretched_YX = self._propagation.transfer(self._wave, 1 + 0.01 * self.distance)
        return None if stretched_YX is None else stretched_YX.to(self._complex)

    def added(self) -> Tensor:
        """Return the background (Y, X), in units of a mean pattern's total; zero frequency at [0, 0]."""
        assert self.background is not None
        root_YX: Tensor = self._along_YV @ self.background @ self._along_XU.T
        return self._mean_pixel * root_YX.square()

    def share(self, background_YX: Tensor) -> Tensor:
        """Return the share of all light, on pixels that count, that a background has."""
        return (background_YX * self._counted_YX).sum()

    def counted(self, intensities_BYX: Tensor, index_B: Tensor) -> Tensor:
        """Return what is counted of the light that arrives.

        Args:
            intensities_BYX: The light.
            index_B: Scan points.
        """
        if self._blur_YX is not None:
            intensities_BYX = blurred(intensities_BYX, self._blur_YX)
        if self.pattern_intensities is not None:
            intensities_BYX = intensities_BYX * self.pattern_intensities.index_select(0, index_B)[:, None, None]
        if self.background is not None:
            background_YX = self.added()
            left = (1 - self.share(background_YX)).clamp_min(_LEAST_LIGHT)
            intensities_BYX = torch.addcmul(background_YX, intensities_BYX, left)
        return intensities_BYX

    def change(self, changes: Tensor, index_B: Tensor) -> Tensor:
        """Return by how much counts change when the light that arrives changes.

        Args:
            changes: Changes of the light (…, B, Y, X).
            index_B: Scan points.
        """
        if self._blur_YX is not None:
            changes = convolved(changes, self._blur_YX)
        if self.pattern_intensities is not None:
            changes = changes * self.pattern_intensities.index_select(0, index_B)[:, None, None]
        if self.background is not None:
            changes = changes * (1 - self.share(self.added())).clamp_min(_LEAST_LIGHT)
        return changes

    @torch.no_grad()
    def put_in_order(self) -> None:
        """Make the mean factor of the patterns of each scan 1: object and probe have the light they have in common."""
        if self.pattern_intensities is None or not self.pattern_intensities.requires_grad:
            return
        self.pattern_intensities.clamp_(min=_DIMMEST)
        for trained_T, points_P in zip(self._trained, self._scans, strict=True):
            self.pattern_intensities[points_P] /= self.pattern_intensities[trained_T].mean()

    @torch.no_grad()
    def fit_held_out(self, index_B: Tensor, expected_BYX: Tensor, measured_BYX: Tensor, mask: Tensor | None) -> None:
        """Fit the factors of held-out patterns to their own totals: a number each, which cannot flatter the loss.

        Args:
            index_B: Their scan points.
            expected_BYX: What is expected to be counted.
            measured_BYX: What was counted.
            mask: Which pixels count, (Y, X) or (B, Y, X); None: all.
        """
        assert self.pattern_intensities is not None
        background_YX = self.added() if self.background is not None else expected_BYX.new_zeros(())
        weight = expected_BYX.new_ones(()) if mask is None else mask.to(expected_BYX)
        found_B, modelled_B = (
            ((each - background_YX) * weight).sum((1, 2)).clamp_min(0) for each in (measured_BYX, expected_BYX)
        )
        factor_B = torch.where(modelled_B > 0, found_B / modelled_B.clamp_min(1e-30), 1.0)
        now_B = self.pattern_intensities.index_select(0, index_B)
        self.pattern_intensities[index_B] = (now_B * factor_B).clamp_min(_DIMMEST)

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return what has become of the parameters that train."""
        found = {}
        if self.background is not None and self.background.requires_grad:
            found["detector/background_share"] = float(self.share(self.added()))
        if self.pattern_intensities is not None and self.pattern_intensities.requires_grad:
            trained = torch.cat([self.pattern_intensities[each] for each in self._trained])
            found["detector/intensity_rms"] = float((trained - 1).square().mean().sqrt())
        if self.distance is not None and self.distance.requires_grad:
            found["detector/distance_change_percent"] = float(self.distance)
        return found


def _scans(data: LiveDiffraction) -> list[Tensor]:
    """Return the points of each scan of which some are trained on, on the CPU."""
    scan_N = torch.zeros(len(data.scan.positions_N2)).long()
    if data.scan.scan_N is not None:
        scan_N = torch.from_numpy(data.scan.scan_N)
    return [torch.nonzero(scan_N == each).flatten() for each in torch.unique(scan_N[data.train_index])]


def between_nodes(size: int, spacing: float) -> Tensor:
    """Return by what a row of nodes is multiplied to get a smooth curve between them (size, nodes), as cubic B-splines.

    Args:
        size: Number of pixels. The one in the middle, size // 2, is the first of the result.
        spacing: Distance of the nodes in pixels; 1: each pixel has its own.

    Example:
        >>> between_nodes(4, 1.0).argmax(1).tolist()
        [2, 3, 0, 1]
    """
    if spacing <= 1:
        weights_YV = torch.eye(size, dtype=torch.float64)
    else:
        last = ceil((size - 1) / spacing)
        middle = 0.5 * (size - 1)
        nodes_V = middle + spacing * (torch.arange(-1, last + 2, dtype=torch.float64) - 0.5 * last)
        away_YV = (torch.arange(size, dtype=torch.float64)[:, None] - nodes_V).abs() / spacing
        near_YV, far_YV = 2 / 3 - away_YV**2 + away_YV**3 / 2, (2 - away_YV).clamp_min(0) ** 3 / 6
        weights_YV = torch.where(away_YV < 1, near_YV, far_YV)
    return weights_YV.roll(-(size // 2), 0)
