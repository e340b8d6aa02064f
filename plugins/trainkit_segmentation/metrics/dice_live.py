"""The Dice coefficient: the accumulator."""

from __future__ import annotations

from trainkit import Batch, Outputs, State
from trainkit_segmentation.data.kind_live import LiveSegmentation
from trainkit_segmentation.metrics.case_scores import CaseScores
from trainkit_segmentation.metrics.overlap import counts, dice


class LiveDice:
    """Dice of each class over a split.

    Args:
        data: The data that the cases come from.
    """

    def __init__(self, data: LiveSegmentation) -> None:
        self._data = data
        self._scores = CaseScores("dice", data.classes)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a case."""
        data = self._data
        found = data.prediction(outputs, batch)
        true = data.truth(batch["case"]).to(found.device)
        counts_K3 = counts(found, true, len(data.classes), data.exclusive)
        self._scores.add(batch, dice(counts_K3), counts_K3[:, 2] > 0)

    def compute(self) -> dict[str, float]:
        """Return the means, and start anew."""
        return self._scores.means()

    def on_validation_end(self, state: State) -> None:
        """Log which classes were left out."""
        self._scores.log_left_out(state)
