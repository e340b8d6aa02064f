"""Simulates near-field images in plain numpy and double precision, independently of the model that reconstructs them.

The specimen is computed anew for each scan point, from the places of its spheres, so nothing is interpolated; and the
wave is propagated on an array that is much wider than the detector, so that nothing comes back at its edges.

Shapes: N = scan points, A = spheres, K, L = rows and columns of the specimen, Y, X = those of the wave's array, V, U =
those of the wider one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainkit import DataError, random_seed
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.physics.optics import photon_wavelength
from trainkit_ptychography.scans.scan import Recording, Scan, Truth

if TYPE_CHECKING:
    from trainkit_ptychography.scans.simulated_near_field import SimulatedNearField

_BEYOND = 24  # pixels on each side of the wave's array, that the beam reaches further
_COVERED = 0.6  # of the specimen's area by spheres, counted as often as they overlap
_DEEPEST = 1.2  # rad behind the middle of the largest sphere
_ABSORPTION = 0.05  # of the phase
_SPECKLE = 12.0  # pixels: the width of the grains of the beam


def simulate(settings: SimulatedNearField) -> Recording:
    """Make the scan that the settings describe.

    Raises:
        DataError: The effective distance is not known, or light spreads further than the beam reaches.
    """
    generator = np.random.default_rng(random_seed(settings.seed))
    wavelength = photon_wavelength(settings.energy_kev)
    size = settings.detector_size + 2 * settings.margin_pixels
    pixel = settings.detector_propagation.object_pixel_angstrom(
        settings.detector_pixel_um, settings.detector_size, wavelength, settings.detector_distance_m
    )
    wide = size + 2 * _BEYOND
    first = wide // 2 + 8
    nominal_N2 = first + generator.uniform(0.0, settings.range_pixels, (settings.num_points, 2))
    true_N2 = nominal_N2 + generator.normal(0.0, settings.position_error_pixels, nominal_N2.shape)
    whole = int(np.ceil(settings.range_pixels)) + wide + 16
    spheres = Spheres(whole, settings.radius_pixels, generator)
    beam_VU = _beam(wide, generator)
    transfer_VU = _transfer(settings, wide, pixel, wavelength)
    first_row = _BEYOND + settings.margin_pixels
    seen = slice(first_row, first_row + settings.detector_size)
    detected_NYX = np.zeros((settings.num_points, size, size))
    inner = slice(settings.margin_pixels, settings.margin_pixels + settings.detector_size)
    for point, (row, column) in enumerate(true_N2):
        places = (np.arange(wide) - wide // 2 + middle for middle in (row, column))
        phase_VU = spheres.phase(*places)
        wave_VU = beam_VU * np.exp((1j + _ABSORPTION) * phase_VU)
        image_VU = np.abs(np.fft.ifft2(np.fft.fft2(wave_VU) * transfer_VU)) ** 2
        detected_NYX[point, inner, inner] = image_VU[seen, seen]
    detected_NYX *= settings.photons_per_pixel / detected_NYX[:, inner, inner].mean()
    counts_NYX = np.fft.ifftshift(generator.poisson(detected_NYX).astype(np.float32), axes=(1, 2))
    scan = Scan(
        positions_N2=nominal_N2,
        source="diffraction_simulated_near_field",
        pixel_size_angstrom=pixel,
        wavelength_angstrom=wavelength,
        energy_kev=settings.energy_kev,
        detector_propagation=settings.detector_propagation,
        detector_distance_m=settings.detector_distance_m,
        mask_YX=_mask(size, settings.margin_pixels),
        truth=Truth(phase_KL=spheres.phase(np.arange(float(whole)), np.arange(float(whole))), positions_N2=true_N2),
    )
    return Recording(counts_NYX, scan)


class Spheres:
    """Spheres strewn at random over a square; through their middles phases are delayed the most.

    Args:
        whole: Rows and columns of the square, in pixels.
        largest: Radius of the largest; the smallest has a third of it.
        generator: Draws them.
    """

    def __init__(self, whole: int, largest: float, generator: np.random.Generator) -> None:
        area = np.pi * largest**2 / 2  # about that of one in the mean
        num = max(1, round(_COVERED * whole**2 / area))
        self._radius_A = generator.uniform(largest / 3, largest, num)
        self._middle_A2 = generator.uniform(0.0, whole, (num, 2))
        self._per_pixel = _DEEPEST / (2 * largest)  # rad, of a pixel of thickness

    def phase(self, rows_K: NDArray[np.floating], columns_L: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the phase in rad (K, L), below 0, at these rows and columns; edges are a pixel wide."""
        thickness_KL = np.zeros((len(rows_K), len(columns_L)))
        for radius, (row, column) in zip(self._radius_A, self._middle_A2, strict=True):
            near_K, near_L = (np.flatnonzero(np.abs(each) < radius + 2) for each in (rows_K - row, columns_L - column))
            if not (len(near_K) and len(near_L)):
                continue
            away_sq_KL = (rows_K[near_K, None] - row) ** 2 + (columns_L[near_L] - column) ** 2
            chord_sq_KL = radius**2 - away_sq_KL
            softened_KL = 0.5 * (chord_sq_KL + np.sqrt(chord_sq_KL**2 + (2 * radius) ** 2))  # over a pixel at the edge
            cut_KL = np.clip(radius + 2 - np.sqrt(away_sq_KL), 0, 1)
            thickness_KL[np.ix_(near_K, near_L)] += 2 * np.sqrt(softened_KL) * cut_KL
        return -self._per_pixel * thickness_KL


def _beam(size: int, generator: np.random.Generator) -> NDArray[np.complex128]:
    """Return a wave with the grains of a diffuser."""

    def grains() -> NDArray[np.float64]:
        frequencies = np.fft.fftfreq(size)
        filtered_VU = np.exp(-((_SPECKLE * frequencies[:, None]) ** 2 + (_SPECKLE * frequencies) ** 2))
        values_VU = np.fft.ifft2(np.fft.fft2(generator.normal(size=(size, size))) * filtered_VU).real
        return np.asarray(values_VU / values_VU.std())

    wave_VU: NDArray[np.complex128] = np.exp(0.25 * grains() + 0.5j * grains())
    return wave_VU


def _transfer(settings: SimulatedNearField, size: int, pixel: float, wavelength: float) -> NDArray[np.complex128]:
    """Return Fresnel's transfer function for the effective distance."""
    propagation = settings.detector_propagation
    if not isinstance(propagation, NearField):
        raise DataError('data.detector_propagation: only { use = "near_field" } is simulated')
    distance_m = propagation.effective_distance_m(settings.detector_distance_m)
    assert distance_m is not None
    square = wavelength * distance_m * 1e10 / pixel**2
    if square > 2 * _BEYOND:
        raise DataError(
            f"the simulated beam reaches {_BEYOND} pixels beyond the array, and light spreads over {square / 2:.3g}: "
            "shorten data.detector_distance_m, or enlarge data.detector_pixel_um"
        )
    frequencies = np.fft.fftfreq(size)
    transfer_VU: NDArray[np.complex128] = np.exp(-1j * np.pi * square * (frequencies[:, None] ** 2 + frequencies**2))
    return transfer_VU


def _mask(size: int, margin: int) -> NDArray[np.bool_] | None:
    """Return which pixels are on the detector, its middle at [0, 0]; None: all."""
    if margin == 0:
        return None
    mask_YX = np.zeros((size, size), bool)
    mask_YX[margin:-margin, margin:-margin] = True
    return np.fft.ifftshift(mask_YX)
