"""What turns pixels of a probe into lengths and angles."""

from __future__ import annotations

from typing import NamedTuple

from trainkit import DataError
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

    def known(self, what: str, setting: str) -> tuple[float, float]:
        """Return pixel size and wavelength in Å.

        Args:
            what: What needs them.
            setting: The setting that asks for it.

        Raises:
            DataError: One of them is not known.
        """
        size, wavelength = self
        if size is None or wavelength is None:
            raise DataError(f"{what} needs the energy and the pixel size: say them in [data], or leave out {setting}")
        return size, wavelength
