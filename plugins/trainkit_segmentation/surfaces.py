"""How far the surfaces of what was found and what is there are apart.

Shapes: K = classes, X, Y, Z = voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from torch import Tensor

from trainkit import Batch, Outputs, State
from trainkit_segmentation.case_scores import CaseScores
from trainkit_segmentation.live_segmentation import LiveSegmentation
from trainkit_segmentation.prediction import masks, prediction

Spacing = tuple[float, float, float]


def hausdorff_95(found_KXYZ: Tensor, true_KXYZ: Tensor, spacing_mm: Spacing) -> Tensor:
    """Return the 95 % Hausdorff distance of each class in mm, (K,).

    NaN where a class is in neither mask, the diagonal of the volume where it is in one alone.
    """
    distances_K = torch.full((len(found_KXYZ),), torch.nan, dtype=torch.float64)
    diagonal = math.dist((0, 0, 0), [n * mm for n, mm in zip(found_KXYZ.shape[1:], spacing_mm, strict=True)])
    for k, (found_XYZ, true_XYZ) in enumerate(zip(found_KXYZ, true_KXYZ, strict=True)):
        there = int(found_XYZ.any()) + int(true_XYZ.any())
        if there == 1:
            distances_K[k] = diagonal
        elif there == 2:
            distances_K[k] = compute_hausdorff_distance(
                found_XYZ[None, None],
                true_XYZ[None, None],
                include_background=True,
                percentile=95,
                spacing=list(spacing_mm),
            )[0, 0]
    return distances_K


def surface_agreement(found_KXYZ: Tensor, true_KXYZ: Tensor, spacing_mm: Spacing, tolerance_mm: float) -> Tensor:
    """Return the share of both surfaces of each class that is within a tolerance of the other, (K,).

    NaN where a class is in neither mask, 0 where it is in one alone.
    """
    shares_K = torch.full((len(found_KXYZ),), torch.nan, dtype=torch.float64)
    for k, (found_XYZ, true_XYZ) in enumerate(zip(found_KXYZ, true_KXYZ, strict=True)):
        there = int(found_XYZ.any()) + int(true_XYZ.any())
        if there == 1:
            shares_K[k] = 0.0
        elif there == 2:
            shares_K[k] = compute_surface_dice(
                found_XYZ[None, None],
                true_XYZ[None, None],
                class_thresholds=[tolerance_mm],
                include_background=True,
                spacing=list(spacing_mm),
            )[0, 0]
    return shares_K


class LiveSurfaceMetric:
    """A measure of surfaces over a split.

    Args:
        name: What its values are called.
        measure: (found, true, spacing) -> (K,), the masks (K, X, Y, Z), on the CPU.
        data: What the cases are from.
        every_epochs: It is measured after every so many epochs, and after the last.
    """

    def __init__(
        self, name: str, measure: Callable[[Tensor, Tensor, Spacing], Tensor], data: LiveSegmentation, every_epochs: int
    ) -> None:
        self._measure = measure
        self._data = data
        self._every_epochs = every_epochs
        self._due = True
        self._scores = CaseScores(name, data.classes)

    def on_validation_start(self, state: State) -> None:
        """See whether it is time."""
        epochs = state.epoch + 1
        self._due = epochs % self._every_epochs == 0 or epochs == state.epochs

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a case."""
        if self._due:
            case, data = batch["case"], self._data
            found_KXYZ = masks(prediction(outputs, batch, data), data).cpu()
            true_KXYZ = masks(data.truth(case), data).cpu()
            self._scores.add(case, self._measure(found_KXYZ, true_KXYZ, data.spacing_mm(case)))

    def compute(self) -> dict[str, float]:
        """Return the means, and start anew; nothing where it was not time."""
        return self._scores.means()

    def on_validation_end(self, state: State) -> None:
        """Say what was left out."""
        self._scores.say_left_out(state)
