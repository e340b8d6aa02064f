"""Comparison of a reconstruction with the truth, where a simulation knows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs

from trainkit import Context, Data, Hook, Problem, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Recipe

NAMES = (
    "truth/phase_pearson",
    "truth/phase_gain",
    "truth/position_rmse_angstrom",
    "truth/position_rmse_start_angstrom",
    "truth/depth_pearson",
)


@component
class CompareWithTruth(Hook):
    """Compares object and positions with the known truth of simulated data; it does not change the training.

    Adds ``truth/phase_pearson``, the correlation of the phase with the true one over the scanned part, at the best
    global shift; ``truth/phase_gain``, its strength as a share of the true one, which a correlation does not see;
    ``truth/position_rmse_angstrom``, the root mean square error of a coordinate of the scan points that are trained on,
    without their mean offset; ``truth/position_rmse_start_angstrom``, the same at the start; and, where the true slices
    of a thick specimen are known, ``truth/depth_pearson``, the correlation of the first third in depth less the last
    one, which is 0 for an object that does not tell depths apart.

    Attributes:
        every_epochs: Epochs from one comparison to the next; the last epoch always has one.
    """

    accepts: ClassVar[type[Data]] = DiffractionData  # type: ignore[type-abstract]

    every_epochs: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    def names(self) -> tuple[str, ...]:
        """Return the names."""
        return NAMES

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check that there is a truth to compare with."""
        if isinstance(recipe.data, DiffractionData) and not recipe.data.knows_truth():
            yield (
                "there is no truth to compare with: [data] must be simulated, or name the true phase and positions "
                "(truth_phase, truth_positions)"
            )

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit_ptychography.hooks.truth_live import TruthComparison

        return TruthComparison(self.every_epochs, NAMES)
