"""The patterns of an opened scan, as those of a file are read.

Shapes: N = scan points, B = points that are asked for, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit_ptychography.scans.kind_live import LiveDiffraction


class LivePatterns:
    """`Patterns` of a run, wherever it keeps them.

    Args:
        data: The opened scan.
    """

    def __init__(self, data: LiveDiffraction) -> None:
        self._data = data
        self.shape: tuple[int, ...] = (len(data.scan.positions_N2), *data.detector_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, points: Any, /) -> NDArray[np.float32]:
        points_B = torch.from_numpy(np.arange(len(self))[points])
        found = []
        for batch in self._data.some(points_B):
            intensities_BYX = _as_counts(self._data.mean_counts * batch["amplitudes"].double().square())
            if "mask" in batch:
                intensities_BYX = torch.where(batch["mask"], intensities_BYX, torch.nan)
            found.append(intensities_BYX.cpu().numpy().astype(np.float32))
        return np.concatenate(found)


def _as_counts(intensities_BYX: Tensor) -> Tensor:
    """Return whole numbers, where all values are such but for the rounding of their roots."""
    whole_BYX = intensities_BYX.round()
    is_whole = (intensities_BYX - whole_BYX).abs() <= 1e-3 + 1e-6 * whole_BYX
    return whole_BYX if is_whole.all() else intensities_BYX
