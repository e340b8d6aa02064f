"""What turns pixels of a probe into lengths and angles."""

from __future__ import annotations

from typing import NamedTuple

from trainkit_ptychography.scans.scan import Scan


class WaveSampling(NamedTuple):
    """What turns pixels of a probe into lengths and angles.

    Attributes:
        pixel_size_angstrom: Size of a pixel; None if unknown.
        wavelength_angstrom: None if unknown.
    """

    pixel_size_angstrom: float | None = None
    wavelength_angstrom: float | None = None

    @classmethod
    def of(cls, scan: Scan) -> WaveSampling:
        """Return the sampling of a scan."""
        return cls(scan.pixel_size_angstrom, scan.wavelength_angstrom)
