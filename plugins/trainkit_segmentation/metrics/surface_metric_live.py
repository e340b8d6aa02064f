"""Metrics of surfaces: the accumulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from trainkit import Batch, Outputs, State
from trainkit_segmentation.data.kind_live import LiveSegmentation
from trainkit_segmentation.metrics.case_scores import CaseScores, CasesOfProcess


class LiveSurfaceMetric:
    """A metric of surfaces over a split.

    Args:
        name: Name of its mean over classes.
        measure: (found, true, spacing in mm, ignored_XYZ=…) -> value, for the masks (X, Y, Z) of one class.
        data: The data that the cases come from.
        is_due_after: Whether it is measured after so many epochs; after the last it is.
        column: Name of its column in the table of cases.
    """

    def __init__(
        self,
        name: str,
        measure: Callable[..., float],
        data: LiveSegmentation,
        is_due_after: Callable[[int], bool],
        column: str,
    ) -> None:
        self._measure = measure
        self._data = data
        self._is_due_after = is_due_after
        self._due = True
        self._column = column
        self._scores = CaseScores(name, data.classes)

    def on_validation_start(self, state: State) -> None:
        """Decide whether this validation is measured."""
        epochs = state.epoch + 1
        self._due = self._is_due_after(epochs) or epochs == state.epochs

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a case."""
        if self._due:
            case, data = batch["case"], self._data
            found_LXYZ, true_LXYZ = data.compared(outputs, batch)
            each_found, each_true = data.masks(found_LXYZ.cpu()), list(data.masks(true_LXYZ.cpu()))
            spacing_mm, ignored = data.spacing_mm(case), data.ignored(case)
            ignored_XYZ = None if ignored is None else ignored.numpy()
            scores = [
                self._measure(found_XYZ.numpy(), true_XYZ.numpy(), spacing_mm, ignored_XYZ=ignored_XYZ)
                for found_XYZ, true_XYZ in zip(each_found, each_true, strict=True)
            ]
            in_truth_K = torch.stack([true_XYZ.any() for true_XYZ in each_true])
            self._scores.add(batch, torch.tensor(scores, dtype=torch.float64), in_truth_K)

    def share(self) -> CasesOfProcess:
        """Return what was taken in since the last means."""
        return self._scores.share()

    def merge(self, shares: Sequence[CasesOfProcess]) -> None:
        """Take in what all processes took in, instead of what this one did."""
        self._scores.merge(shares)

    def compute(self) -> dict[str, float]:
        """Return the means, and start anew; empty if this validation was not measured."""
        return self._scores.means()

    def rows(self) -> Iterator[Mapping[str, str | float | None]]:
        """Yield the value of each case and class."""
        return self._scores.rows(self._column)

    def on_validation_end(self, state: State) -> None:
        """Log which classes were left out."""
        self._scores.log_left_out(state)
