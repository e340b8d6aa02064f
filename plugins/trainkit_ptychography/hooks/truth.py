"""Comparison of a reconstruction with the truth, where a simulation knows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from trainkit import Context, Hook, Problem, component
from trainkit_ptychography.scans.kind import DiffractionData

if TYPE_CHECKING:
    from trainkit import Recipe

NAMES = ("truth/phase_pearson", "truth/position_rmse_angstrom", "truth/position_rmse_start_angstrom")


@component
class CompareWithTruth(Hook):
    """Measures how near object and positions are to the known truth; for simulated data. It changes nothing.

    Adds ``truth/phase_pearson``, the correlation of the phase with the true one over the scanned part, at the best
    global shift; ``truth/position_rmse_angstrom``, the root mean square error of a coordinate of the scan points that
    are trained on, after their mean offset; and ``truth/position_rmse_start_angstrom``, what that was at first.

    Attributes:
        every_epochs: Compare after every so many epochs, and after the last.
    """

    every_epochs: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    def names(self) -> tuple[str, ...]:
        """Return the three names."""
        return NAMES

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Find out whether there is a truth to compare with."""
        if not (isinstance(recipe.data, DiffractionData) and recipe.data.knows_truth()):
            yield (
                "there is no truth to compare with: [data] must be simulated diffraction data, or say where the true "
                "phase and positions are (truth_phase, truth_positions)"
            )

    def build(self, context: Context) -> object:
        """Make the live part."""
        from trainkit_ptychography.hooks.truth_live import TruthComparison

        return TruthComparison(self.every_epochs, NAMES)
