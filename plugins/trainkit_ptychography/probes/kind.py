"""The kind "probe": what illuminates the specimen, before anything is trained. Other packages add ways of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from trainkit import Component, Problem, component
from trainkit_ptychography.probes.made_power import POWER_OF_A_MADE_MODE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit import Recipe
    from trainkit_ptychography.scans.kind_live import LiveDiffraction

Aberration = Literal[
    "C10", "C12", "C21", "C23", "C30", "C32", "C34", "C41", "C43", "C45", "C50", "C52", "C54", "C56"
]  # fmt: skip
"""Aberrations to fifth order, by their names in Krivanek's notation."""

_MOST_OPR_MODES = 16  # as many as the changes with which they begin can tell apart


@component
class Probe(Component):
    """What illuminates the specimen, as it is known before the run.

    More than one mode can account for a partly coherent source, for vibrations, or for a scan that moves during an
    exposure.

    Attributes:
        modes: Number of mutually incoherent modes. If left out, those of the guess, which most often is one. Modes that
            the guess does not have are made from its first one, orthogonal to it and to each other: its derivatives
            along rows and columns, which is what a source of some size adds.
        powers: Share of the total power of each mode after the first. If left out, modes of the guess keep their
            proportions, and those that are made have 0.02 each.
        trained_aberrations: Which aberrations of the lens group ``aberrations`` trains, for example ["C10", "C12"]:
            changes that all modes have in common, whatever the probe is made from. Its learning rate is in rad of phase
            at the edge of the aperture (0.05 with "adam"). C10 is overfocus, −defocus. If group ``probe`` trains as
            well, each of the two can make the same change of the probe, and metrics ``aberration_change/…`` are only
            one part of it: start ``probe`` later, or not at all, to measure aberrations.
        defocus_spread_angstrom: Standard deviation of the defocus that a spread of energies and of the lens current
            makes (chromatic aberration times relative energy spread): partial temporal coherence. Each mode is then
            seen as ``defocus_spread_nodes`` of them, which takes as many times the transforms. Group
            ``defocus_spread`` trains it (in Å, with an optimizer that asks for no curvature, such as "adam"), if it is
            given a ``start_epoch``.
        defocus_spread_nodes: Number of defoci that stand for the spread (nodes of a Gauss-Hermite quadrature); check
            --data says if they are too few.
        opr_modes: Number of modes by which the probe changes over the scan (orthogonal probe relaxation, OPR), for
            example because the lens drifts or charges: the probe of a scan point is the mean probe plus these modes
            with the point's own weights. Group ``opr_weights`` trains the weights (shares of the probe's amplitude),
            group ``opr_modes`` the modes (shares of its peak); both need a ``start_epoch``, at which there should be an
            object, because the modes begin as what patterns then ask of their own probes. One or two are enough for a
            slow drift. Weights of held-out patterns are interpolated between those measured before and after them.
    """

    entry_points: ClassVar[str] = "trainkit.ptychography.probes"
    steps_can_be_tried: ClassVar[bool] = True
    steps_can_be_recorded: ClassVar[bool] = True

    modes: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    powers: tuple[float, ...] | None = None
    trained_aberrations: tuple[Aberration, ...] = ()
    defocus_spread_angstrom: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    defocus_spread_nodes: int = attrs.field(default=5, validator=attrs.validators.ge(2))
    opr_modes: int = attrs.field(default=0, validator=[attrs.validators.ge(0), attrs.validators.le(_MOST_OPR_MODES)])

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Check the modes' powers."""
        if self.powers is not None and len(self.powers) != (self.modes or 1) - 1:
            told = f"modes = {self.modes}" if self.modes else "a guess of one mode (modes is not said)"
            yield Problem(
                f"{told} needs {(self.modes or 1) - 1} powers, one for each mode after the first; got "
                f"{len(self.powers)}",
                "powers",
            )
        if self.powers is not None and (any(not power > 0 for power in self.powers) or sum(self.powers) >= 1):
            yield Problem(
                f"powers of the modes after the first must be above 0 and sum to less than 1; they are {self.powers}",
                "powers",
            )
        if self.powers is None and POWER_OF_A_MADE_MODE * ((self.modes or 1) - 1) >= 1:
            yield Problem(
                f"{self.modes} modes, with {POWER_OF_A_MADE_MODE} of the power each, leave nothing for the first: say "
                "powers",
                "modes",
            )
        twice = sorted({name for name in self.trained_aberrations if self.trained_aberrations.count(name) > 1})
        if twice:
            yield Problem(f"names {', '.join(twice)} more than once", "trained_aberrations")

    def num_scans(self) -> int:
        """Return for how many scans of one specimen it has probes; 1: one for all."""
        return 1

    def of_scan(self, number: int) -> Probe:
        """Return the probe of one of the scans, counted from 0."""
        return self

    @abstractmethod
    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return the modes that are known, complex (M, Y, X), centred at pixel (Y//2, X//2); only their ratios matter.

        Raises:
            DataError: The data does not tell what is needed.
        """

    def build(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        """Return all modes, as `guess` does, with the powers that these settings ask for.

        Raises:
            DataError: The data does not tell what is needed, or the modes cannot be made.
        """
        from trainkit_ptychography.probes.mode_making import with_modes

        return with_modes(self.guess(data), self.modes, self.powers)
