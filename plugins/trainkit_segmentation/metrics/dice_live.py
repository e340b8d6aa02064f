"""The Dice coefficient: the accumulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trainkit import Batch, Outputs, State
from trainkit_segmentation.data.kind_live import LiveSegmentation
from trainkit_segmentation.files.header import voxel_volume_ml
from trainkit_segmentation.metrics.case_scores import CaseScores, CasesOfProcess
from trainkit_segmentation.metrics.overlap import counts, dice


class LiveDice:
    """Dice of each class over a split.

    Args:
        data: The data that the cases come from.
    """

    def __init__(self, data: LiveSegmentation) -> None:
        self._data = data
        self._scores = CaseScores("dice", data.classes)
        self._volumes = CaseScores("volume", data.classes), CaseScores("volume", data.classes)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a case."""
        data = self._data
        found, true = data.compared(outputs, batch)
        counts_K3 = counts(found, true, len(data.classes), data.exclusive)
        self._scores.add(batch, dice(counts_K3), counts_K3[:, 2] > 0)
        volume_ml = voxel_volume_ml(data.affine(batch["case"]))
        for scores, column in zip(self._volumes, (2, 1), strict=True):
            scores.add(batch, counts_K3[:, column].double() * volume_ml)

    def share(self) -> list[CasesOfProcess]:
        """Return what was taken in since the last means."""
        return [each.share() for each in (self._scores, *self._volumes)]

    def merge(self, shares: Sequence[list[CasesOfProcess]]) -> None:
        """Take in what all processes took in, instead of what this one did."""
        for place, scores in enumerate((self._scores, *self._volumes)):
            scores.merge(each[place] for each in shares)

    def compute(self) -> dict[str, float]:
        """Return the means, and start anew."""
        for scores in self._volumes:
            scores.means()
        return self._scores.means()

    def rows(self) -> Iterator[Mapping[str, str | float | None]]:
        """Yield the Dice and the volumes of each case and class."""
        yield from self._scores.rows("dice")
        for scores, column in zip(self._volumes, ("true_ml", "predicted_ml"), strict=True):
            yield from scores.rows(column)

    def on_validation_end(self, state: State) -> None:
        """Log which classes were left out."""
        self._scores.log_left_out(state)
