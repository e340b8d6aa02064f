"""Comparison of a reconstruction with the truth: the live part."""

from __future__ import annotations

from trainkit import DataError, State
from trainkit_ptychography.models.single_slice_live import SingleSliceModule
from trainkit_ptychography.physics.quality import phase_pearson, position_rmse
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Truth

_EDGE = 2.0  # pixels at the edge of the scan that are not compared: few patterns see them


class TruthComparison:
    """Adds to ``state.metrics`` how near the model is to the truth of its data."""

    def __init__(self, every_epochs: int, names: tuple[str, ...]) -> None:
        self._every_epochs, self._names = every_epochs, names

    def on_run_start(self, state: State) -> None:
        """See that there is something to compare."""
        _known(state.data, state.model)

    def on_epoch_end(self, state: State) -> None:
        """Compare."""
        epochs = state.epoch + 1
        if epochs % self._every_epochs and epochs < state.epochs:
            return
        state.metrics.update(zip(self._names, compare(state.data, state.model), strict=True))


def compare(data: object, model: object) -> tuple[float, float, float]:
    """Return phase correlation, position error now and position error at the start, both in Å.

    Positions are compared over the points that are trained on.

    Raises:
        DataError: Data or model are not ptychographic, or the truth or the pixel size is not known.
    """
    data, model, truth, pixel_size = _known(data, model)
    nominal_N2, trained = data.scan.positions_N2, data.train_index.numpy()
    low_2, high_2 = nominal_N2.min(axis=0) + _EDGE, nominal_N2.max(axis=0) - _EDGE
    box = ((low_2[0], high_2[0]), (low_2[1], high_2[1]))
    r = phase_pearson(model.reconstruction().projected_phase(), model.motion.origin_2, truth.phase_KL, box)
    now, start = (
        position_rmse(positions_N2[trained], truth.positions_N2[trained]) * pixel_size
        for positions_N2 in (model.positions(), nominal_N2)
    )
    return r, now, start


def _known(data: object, model: object) -> tuple[LiveDiffraction, SingleSliceModule, Truth, float]:
    if not (isinstance(data, LiveDiffraction) and isinstance(model, SingleSliceModule)):
        raise DataError("ptychography_truth compares ptychographic models alone; take the hook out of the recipe")
    if data.scan.truth is None or data.scan.pixel_size_angstrom is None:
        raise DataError(
            f"{data.scan.source} gives no truth, or no pixel size to measure it with; set them in [data], or take the "
            "hook ptychography_truth out of the recipe"
        )
    return data, model, data.scan.truth, data.scan.pixel_size_angstrom
