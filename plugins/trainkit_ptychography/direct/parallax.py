"""Parallax, or tilt-corrected bright field: the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.direct.kind import DirectMethod, LiveDirectMethod

if TYPE_CHECKING:
    from trainkit_ptychography.direct.evidence import Evidence


@component
class Parallax(DirectMethod):
    """Parallax, or tilt-corrected bright field: the images that pixels of the bright field make, aligned and summed.

    Choose it for a defocused probe and few electrons, and where scan points lie far apart: the probe's aberrations
    shift the images against each other, so that together they fill the gaps. It shows nothing finer than the aperture's
    angle, and at focus nothing at all.

    Images are aligned by the shifts that the told probe's aberrations make. Their sum is the phase multiplied by the
    contrast transfer of that probe, which is divided out with its sign.

    Source: Spoth, Nguyen, Muller, Kourkoutis, Microscopy and Microanalysis 23 S1 (2017) 804; Varnavides, Ribet, et al.,
    arXiv:2309.05250 (2023).
    """

    title: ClassVar[str] = "parallax"

    def build(self, evidence: Evidence) -> LiveDirectMethod:
        """Make what looks at the patterns."""
        from trainkit_ptychography.direct.parallax_live import LiveParallax

        return LiveParallax(evidence)
