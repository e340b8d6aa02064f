"""Single side bands: the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainkit import component
from trainkit_ptychography.direct.kind import DirectMethod, LiveDirectMethod

if TYPE_CHECKING:
    from trainkit_ptychography.direct.evidence import Evidence


@component
class SingleSideBand(DirectMethod):
    """Single-side-band ptychography, as a least-squares fit of a weak phase; for a thin specimen, at any defocus.

    Choose it first: it takes all that patterns tell of a weak phase, with a probe of any aberrations or modes, to twice
    the angle of the aperture. It needs the probe; a strong or thick specimen it shows distorted.

    Each pattern is taken back to the specimen once, where its probe was, and the sum is divided by what a probe there
    transfers of each frequency. So positions may lie anywhere. It costs about as much as half an epoch of training.

    Source: Rodenburg, McCallum, Nellist, Ultramicroscopy 48 (1993) 304; Pennycook et al., Ultramicroscopy 151 (2015)
    160 (side bands); Ooe et al., Ultramicroscopy 220 (2021) 113133 (weights of least squares).
    """

    title: ClassVar[str] = "single side bands"

    def build(self, evidence: Evidence) -> LiveDirectMethod:
        """Make what looks at the patterns."""
        from trainkit_ptychography.direct.ssb_live import LiveSingleSideBand

        return LiveSingleSideBand(evidence)
