"""Comparison of a reconstruction with the truth: the live part."""

from __future__ import annotations

from typing import cast

from trainkit import DataError, Live, RecipeError, State
from trainkit_ptychography.models.output import (
    Reconstruction,
    Reconstructs,
    agreement_with_truth,
    depth_agreement_with_truth,
)
from trainkit_ptychography.physics.quality import PhaseAgreement, position_rmse
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Truth


class TruthComparison(Live):
    """Adds to ``state.metrics`` how near the model is to the truth of its data."""

    def __init__(self, every_epochs: int, names: tuple[str, ...]) -> None:
        self._every_epochs, self._names = every_epochs, names

    def on_run_start(self, state: State) -> None:
        """Check that there is something to compare.

        Raises:
            RecipeError: The model gives no reconstruction.
            DataError: The truth or the pixel size is not known.
        """
        if not isinstance(state.model, Reconstructs):
            raise RecipeError(
                f"ptychography_truth compares models that have reconstruction(); {type(state.model).__name__} has "
                "none: take the hook out of the recipe"
            )
        _known_truth(cast(LiveDiffraction, state.data))

    def on_epoch_end(self, state: State) -> None:
        """Compare."""
        if (state.epoch + 1) % self._every_epochs and not state.is_last_epoch:
            return
        data = cast(LiveDiffraction, state.data)
        reconstruction = cast(Reconstructs, state.model).reconstruction()
        found = (*agreement(data, reconstruction), *position_errors(data, reconstruction))
        state.metrics.update(zip(self._names[: len(found)], found, strict=True))
        if (depth := depth_agreement_with_truth(reconstruction, data)) is not None:
            state.metrics[self._names[-1]] = depth


def compare(data: LiveDiffraction, model: Reconstructs) -> tuple[float, float, float]:
    """Return phase correlation, position error now and position error at the start, both in Å.

    Raises:
        DataError: The truth or the pixel size is not known.
    """
    reconstruction = model.reconstruction()
    return agreement(data, reconstruction).pearson, *position_errors(data, reconstruction)


def agreement(data: LiveDiffraction, reconstruction: Reconstruction) -> PhaseAgreement:
    """Return how near the phase is to the true one over the scanned part.

    Raises:
        DataError: The truth or the pixel size is not known.
    """
    _known_truth(data)
    found = agreement_with_truth(reconstruction, data)
    assert found is not None
    return found


def position_errors(data: LiveDiffraction, reconstruction: Reconstruction) -> tuple[float, float]:
    """Return the position error now and at the start, in Å, over the points that are trained on.

    Raises:
        DataError: The truth or the pixel size is not known.
    """
    truth, pixel_size = _known_truth(data)
    trained = data.train_index.numpy()
    now, start = (
        position_rmse(positions_N2[trained], truth.positions_N2[trained]) * pixel_size
        for positions_N2 in (reconstruction.positions_N2, data.scan.positions_N2)
    )
    return now, start


def _known_truth(data: LiveDiffraction) -> tuple[Truth, float]:
    if data.scan.truth is None or data.scan.pixel_size_angstrom is None:
        raise DataError(
            f"{data.scan.source} gives no truth, or no pixel size to measure it with; set them in [data], or take the "
            "hook ptychography_truth out of the recipe"
        )
    return data.scan.truth, data.scan.pixel_size_angstrom
