"""Differential phase contrast: the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.direct.kind import DirectMethod, LiveDirectMethod

if TYPE_CHECKING:
    from trainkit_ptychography.direct.evidence import Evidence


@component
class DifferentialPhaseContrast(DirectMethod):
    """Differential phase contrast: the centre of mass of each pattern, integrated (iCOM).

    Choose it for a probe near focus, and for a strong phase: for a specimen that only shifts phases, the centre of mass
    is exactly the mean slope of the phase within the probe. It shows nothing finer than the probe, so little at a large
    defocus, and its slowest variations are noisy.

    Source: Müller et al., Nature Communications 5 (2014) 5653; Lazić, Bosch, Lazar, Ultramicroscopy 160 (2016) 265.
    """

    title: ClassVar[str] = "differential phase contrast"

    def build(self, evidence: Evidence) -> LiveDirectMethod:
        """Make what looks at the patterns."""
        from trainkit_ptychography.direct.dpc_live import LiveDifferentialPhaseContrast

        return LiveDifferentialPhaseContrast(evidence)
