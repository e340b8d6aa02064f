"""Shifts of whole scans of one specimen against the first of them, which are trained.

Shapes: N = scan points, B = patterns of a batch, R = scans.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainkit_ptychography.scans.kind_live import LiveDiffraction


class ScanShifts(nn.Module):
    """By how much each scan lies elsewhere than its positions tell. The first one is the frame of the others.

    Attributes:
        further: (R − 1, 2) shift of each scan after the first, in pixels.
        scan_N: The scan of each point.
    """

    scan_N: Tensor

    def __init__(self, data: LiveDiffraction) -> None:
        super().__init__()
        assert data.scan.scan_N is not None
        self._trained = data.train_index
        self._size = data.scan.pixel_size_angstrom
        like = torch.zeros(data.scan.num_scans - 1, 2, dtype=data.dtype, device=data.device)
        self.further = nn.Parameter(like)
        self.register_buffer("scan_N", torch.from_numpy(data.scan.scan_N).to(data.device), persistent=False)

    def of_points(self, index_B: Tensor) -> Tensor:
        """Return the shifts of scan points (B, 2)."""
        all_R2 = torch.cat([torch.zeros_like(self.further[:1]), self.further])
        return all_R2.index_select(0, self.scan_N.index_select(0, index_B))

    @torch.no_grad()
    def of_all(self) -> Tensor:
        """Return the shifts of all points (N, 2)."""
        return self.of_points(torch.arange(len(self.scan_N), device=self.scan_N.device))

    @torch.no_grad()
    def receive(self, dr_N2: Tensor) -> None:
        """Take what all points of a scan have in common out of their displacements, in place, and keep it as a shift.

        What the points of the first scan have in common is dropped, since it is the frame.

        Args:
            dr_N2: The displacements.
        """
        scan_T = self.scan_N.cpu()[self._trained]
        first_2 = torch.zeros_like(dr_N2[0])
        for scan in range(len(self.further) + 1):
            points_P = self._trained[scan_T == scan]
            if not len(points_P):
                continue
            mean_2 = dr_N2[points_P].mean(0)
            dr_N2[points_P] -= mean_2
            if scan == 0:
                first_2 = mean_2
            else:
                self.further[scan - 1] += mean_2 - first_2

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return the shifts, in Å if the size of a pixel is known, else in pixels."""
        unit = "px" if self._size is None else "angstrom"
        found = {}
        for number, (rows, columns) in enumerate((self.further * (self._size or 1.0)).tolist(), 1):
            found[f"scan/shift_of_scan_{number}_rows_{unit}"] = rows
            found[f"scan/shift_of_scan_{number}_columns_{unit}"] = columns
        return found
