"""Electron optics: from a microscope's settings to the wave that illuminates the specimen.

Shapes: Y, X = rows and columns of the detector (and of the probe's array).
Units: Å and rad; a setting's own unit is in its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot, pi, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError

_PLANCK_TIMES_LIGHT = 12398.419843320026  # h·c in eV·Å (exact since 2019)
_REST_ENERGY = 510998.95069  # m·c² of the electron in eV (CODATA 2022)


class Term(NamedTuple):
    """One aberration, by the powers with which it enters the phase.

    Attributes:
        order: Power of the angle, less one: 1 for defocus, 3 for the spherical aberration.
        symmetry: Its rotational symmetry; 0 for a round aberration.
    """

    order: int
    symmetry: int


TERMS: Mapping[str, Term] = {
    "C10": Term(1, 0),
    "C12": Term(1, 2),
    "C21": Term(2, 1),
    "C23": Term(2, 3),
    "C30": Term(3, 0),
    "C32": Term(3, 2),
    "C34": Term(3, 4),
    "C41": Term(4, 1),
    "C43": Term(4, 3),
    "C45": Term(4, 5),
    "C50": Term(5, 0),
    "C52": Term(5, 2),
    "C54": Term(5, 4),
    "C56": Term(5, 6),
}
"""Aberrations to fifth order, by their names in Krivanek's notation."""


def electron_wavelength(energy_kev: float) -> float:
    """Return the relativistic de Broglie wavelength in Å.

    Args:
        energy_kev: Kinetic energy in keV, above 0.

    Example:
        >>> round(electron_wavelength(80.0), 6)
        0.041757

    Raises:
        DataError: The energy is not positive.

    Source:
        Kirkland, "Advanced Computing in Electron Microscopy" (2020), eq. 2.5.
    """
    if not energy_kev > 0:
        raise DataError(f"an electron's energy must be above 0 keV, got {energy_kev:g} keV")
    energy = energy_kev * 1e3
    return _PLANCK_TIMES_LIGHT / sqrt(energy * (energy + 2 * _REST_ENERGY))


def photon_wavelength(energy_kev: float) -> float:
    """Return the wavelength of light in Å.

    Args:
        energy_kev: Energy of a photon in keV, above 0.

    Example:
        >>> round(photon_wavelength(8.0), 4)
        1.5498

    Raises:
        DataError: The energy is not positive.
    """
    if not energy_kev > 0:
        raise DataError(f"a photon's energy must be above 0 keV, got {energy_kev:g} keV")
    return _PLANCK_TIMES_LIGHT / (1e3 * energy_kev)


def scattering_angles(
    shape: tuple[int, int], pixel_size_angstrom: float, wavelength_angstrom: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the polar coordinates of each detector pixel.

    Args:
        shape: Rows and columns.
        pixel_size_angstrom: Size of an object pixel in Å.
        wavelength_angstrom: Wavelength in Å.

    Returns:
        Polar angle in rad, and azimuth in rad from the column axis (right) towards the row axis (down); both (Y, X)
        with zero frequency at [0, 0].
    """
    frequency_Y1 = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    frequency_1X = np.fft.fftfreq(shape[1], pixel_size_angstrom)[None, :]
    return wavelength_angstrom * np.hypot(frequency_Y1, frequency_1X), np.arctan2(frequency_Y1, frequency_1X)


def aberration_phase(
    polar_YX: NDArray[np.float64],
    azimuth_YX: NDArray[np.float64],
    wavelength_angstrom: float,
    coefficients: Mapping[str, tuple[float, float]],
) -> NDArray[np.float64]:
    """Return χ in rad, by which the lens delays the wave; the wave is multiplied by exp(−iχ).

    χ = 2π/λ · Σ αⁿ⁺¹/(n+1) · C_nm cos(m(φ − φ_nm))

    Args:
        polar_YX: Angle α in rad.
        azimuth_YX: Azimuth φ in rad.
        wavelength_angstrom: λ in Å.
        coefficients: Name (for example "C12") -> (C_nm in Å, φ_nm in rad). Positive C10 is overfocus.

    Source:
        Krivanek, Dellby, Lupini, Ultramicroscopy 78 (1999) 1, eq. 1; in polar form.
    """
    path_YX = np.zeros_like(polar_YX)
    for name, (size, direction) in coefficients.items():
        order, symmetry = TERMS[name]
        path_YX += size * polar_YX ** (order + 1) / (order + 1) * np.cos(symmetry * (azimuth_YX - direction))
    return 2 * pi / wavelength_angstrom * path_YX


def aperture(
    polar_YX: NDArray[np.float64], semiangle_rad: float, pixel_angles_rad: tuple[float, float]
) -> NDArray[np.float64]:
    """Return a round aperture whose edge falls linearly over one detector pixel, 1 inside and 0 outside.

    A hard edge would make the illumination jump with the sampling of the detector.

    Args:
        polar_YX: Angle of each pixel in rad.
        semiangle_rad: Half opening angle in rad.
        pixel_angles_rad: Angle that a detector pixel covers along rows and columns, in rad.
    """
    edge = hypot(*pixel_angles_rad) / sqrt(2)
    inside_YX: NDArray[np.float64] = np.clip((semiangle_rad - polar_YX) / edge + 0.5, 0.0, 1.0)
    return inside_YX


def aperture_probe(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    wavelength_angstrom: float,
    semiangle_mrad: float,
    coefficients: Mapping[str, tuple[float, float]],
) -> NDArray[np.complex128]:
    """Return the wave that an aperture and a lens make in the specimen's plane.

    Args:
        shape: Rows and columns.
        pixel_size_angstrom: Size of an object pixel in Å.
        wavelength_angstrom: Wavelength in Å.
        semiangle_mrad: Half opening angle of the aperture in mrad.
        coefficients: Aberrations, as `aberration_phase` takes them.

    Returns:
        Complex (Y, X) of total power 1, its centre at pixel (Y//2, X//2).

    Raises:
        DataError: The aperture does not fit on the detector.
    """
    polar_YX, azimuth_YX = scattering_angles(shape, pixel_size_angstrom, wavelength_angstrom)
    largest_mrad = 1e3 * wavelength_angstrom / (2 * pixel_size_angstrom)
    if semiangle_mrad > largest_mrad:
        raise DataError(
            f"an aperture of {semiangle_mrad:g} mrad does not fit on the detector, which reaches to {largest_mrad:.3g} "
            f"mrad (wavelength {wavelength_angstrom:.4g} Å, pixel size {pixel_size_angstrom:.4g} Å): check "
            "semiangle_mrad, the energy and the pixel size"
        )
    pixel_angles = tuple(wavelength_angstrom / (num * pixel_size_angstrom) for num in shape)
    open_YX = aperture(polar_YX, 1e-3 * semiangle_mrad, (pixel_angles[0], pixel_angles[1]))
    chi_YX = aberration_phase(polar_YX, azimuth_YX, wavelength_angstrom, coefficients)
    wave_YX = np.fft.fftshift(np.fft.ifft2(open_YX * np.exp(-1j * chi_YX)))
    probe_YX: NDArray[np.complex128] = wave_YX / np.sqrt((np.abs(wave_YX) ** 2).sum())
    return probe_YX
