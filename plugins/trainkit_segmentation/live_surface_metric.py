"""Measures of surfaces: the accumulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from trainkit import Batch, Outputs, State
from trainkit_segmentation.case_scores import CaseScores
from trainkit_segmentation.live_segmentation import LiveSegmentation
from trainkit_segmentation.prediction import masks, prediction
from trainkit_segmentation.surfaces import Mask, Spacing


class LiveSurfaceMetric:
    """A measure of surfaces over a split.

    Args:
        name: What its values are called.
        measure: (found, true, spacing) -> (K,), the masks (K, X, Y, Z).
        data: What the cases are from.
        every_epochs: It is measured after every so many epochs, and after the last.
    """

    def __init__(
        self,
        name: str,
        measure: Callable[[Mask, Mask, Spacing], NDArray[Any]],
        data: LiveSegmentation,
        every_epochs: int,
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
            found_KXYZ = masks(prediction(outputs, batch, data), data).cpu().numpy()
            true_KXYZ = masks(data.truth(case), data).cpu().numpy()
            self._scores.add(case, torch.from_numpy(self._measure(found_KXYZ, true_KXYZ, data.spacing_mm(case))))

    def compute(self) -> dict[str, float]:
        """Return the means, and start anew; nothing where it was not time."""
        return self._scores.means()

    def on_validation_end(self, state: State) -> None:
        """Say what was left out."""
        self._scores.say_left_out(state)
