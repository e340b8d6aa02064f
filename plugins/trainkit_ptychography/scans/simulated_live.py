"""Simulates a scan in plain numpy and double precision, independently of the model that reconstructs it.

Shapes: N = scan points, A = atoms, S = slices, K, L = rows and columns of the specimen, Y, X = those of the detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainkit import random_seed
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.scans.scan import Recording, Scan, Truth
from trainkit_ptychography.scans.shifts import shifts_of_points

if TYPE_CHECKING:
    from trainkit_ptychography.scans.simulated import SimulatedDiffraction

_ATOM_RADIUS = 0.45  # Å, standard deviation of an atom's projected phase
_TRIES = 4000  # random places tried for atoms
_MOMENTS = 8  # of an exposure during which the beam moves


def simulate(settings: SimulatedDiffraction) -> Recording:
    """Make the scan that the settings describe."""
    generator = np.random.default_rng(random_seed(settings.seed))
    size, pixel = settings.detector_size, settings.pixel_size_angstrom
    wavelength = electron_wavelength(settings.energy_kev)

    # The specimen is as large as all patches together, so that nothing wraps around.
    offsets_angstrom = settings.further_offsets_angstrom
    step, margin = settings.step_angstrom / pixel, 4 + int(np.ceil(np.abs([*offsets_angstrom, (0, 0)]).max() / pixel))
    moved = settings.exposure_motion_angstrom / pixel
    margin += max(int(np.ceil(moved / 2)) - 2, 0)  # a short way changes the specimen by nothing
    first = size // 2 + margin
    grids = np.meshgrid(*(first + step * np.arange(num) for num in settings.scan_shape), indexing="ij")
    nominal_N2 = np.stack(grids, axis=-1).reshape(-1, 2)
    shape_KL = tuple(int(np.ceil(step * (num - 1))) + size + 2 * margin for num in settings.scan_shape)

    def displaced(offset_angstrom: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
        true_N2 = nominal_N2 + np.array(offset_angstrom) / pixel
        true_N2 = true_N2 + generator.normal(0.0, settings.position_error_angstrom / pixel, nominal_N2.shape)
        least = 1 + moved / 2
        return np.clip(true_N2, size // 2 + least, np.array(shape_KL) - (size - size // 2) - least)

    true_N2 = displaced()

    lengths = (settings.atom_spacing_angstrom / pixel, _ATOM_RADIUS / pixel)
    slices_SKL = atoms(shape_KL, *lengths, generator)[None]
    if settings.slices > 1:
        upper = settings.slices if settings.grains == 1 else (settings.slices + 1) // 2
        grains = [(slices_SKL[0], upper)]
        if upper < settings.slices:
            grains.append((atoms(shape_KL, *lengths, generator), settings.slices - upper))
        slices_SKL = np.stack([phase_KL / num for phase_KL, num in grains for _ in range(num)])
    distance = settings.thickness_angstrom / settings.slices
    straight_YX = np.exp(-1j * np.pi * wavelength * distance * _squared_frequencies((size, size), pixel))
    frequency_K = np.fft.fftfreq(size)
    along_M = moved * ((np.arange(_MOMENTS) + 0.5) / _MOMENTS - 0.5) if moved else np.zeros(1)
    moments_M2 = np.stack([np.zeros_like(along_M), along_M], axis=-1)
    counts = settings.dose_per_square_angstrom * settings.step_angstrom**2

    def scanned(
        defocus_angstrom: float, tilt_mrad: tuple[float, float], true_N2: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        down, right = distance * np.tan(1e-3 * np.array(tilt_mrad)) / pixel  # from one slice to the next
        between_YX = straight_YX * np.exp(-2j * np.pi * (frequency_K[:, None] * down + frequency_K * right))
        drift_N = settings.defocus_drift_angstrom * np.linspace(-0.5, 0.5, len(true_N2))
        of_points = (
            aperture_probe((size, size), pixel, wavelength, settings.semiangle_mrad, {"C10": (-each, 0.0)})
            for each in defocus_angstrom + (drift_N if drift_N.any() else np.zeros(1))
        )
        probes_NYX, transmission_SKL = np.stack([*of_points]), np.exp(1j * slices_SKL)
        expected_NYX = sum(
            patterns_of_slices(transmission_SKL, probes_NYX, true_N2 + moved_2, between_YX) for moved_2 in moments_M2
        )
        seen_NYX: NDArray[np.float32] = generator.poisson(counts / len(moments_M2) * expected_NYX).astype(np.float32)
        return seen_NYX

    num = max(map(len, (settings.further_defoci_angstrom, settings.further_tilts_mrad, offsets_angstrom)))
    defoci_angstrom = settings.further_defoci_angstrom or (settings.defocus_angstrom,) * num
    tilts_mrad = settings.further_tilts_mrad or (settings.tilt_mrad,) * num
    places, frames = [true_N2], [scanned(settings.defocus_angstrom, settings.tilt_mrad, true_N2)]
    offsets_angstrom = offsets_angstrom or ((0.0, 0.0),) * num
    for defocus_angstrom, tilt_mrad, offset in zip(defoci_angstrom, tilts_mrad, offsets_angstrom, strict=True):
        places.append(displaced(offset))
        frames.append(scanned(defocus_angstrom, tilt_mrad, places[-1]))
    intensities_NYX, true_N2 = np.concatenate(frames), np.concatenate(places)
    scan_N = np.repeat(np.arange(len(places)), len(nominal_N2)) if len(places) > 1 else None
    source = "diffraction_simulated"
    scan = Scan(
        positions_N2=np.concatenate([nominal_N2] * len(places))
        + shifts_of_points(settings.scan_shifts_angstrom, scan_N, pixel, source),
        scan_N=scan_N,
        source=source,
        pixel_size_angstrom=pixel,
        wavelength_angstrom=wavelength,
        energy_kev=settings.energy_kev,
        semiangle_mrad=settings.semiangle_mrad,
        defocus_angstrom=settings.defocus_angstrom,
        truth=Truth(
            phase_KL=slices_SKL.sum(axis=0),
            positions_N2=true_N2,
            slices_SKL=slices_SKL if settings.slices > 1 else None,
        ),
    )
    return Recording(intensities_NYX, scan)


def atoms(
    shape_KL: tuple[int, ...], spacing: float, radius: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the phase of atoms strewn at random, none nearer to another than ``spacing``; lengths are in pixels."""
    places_A2 = np.empty((0, 2))
    for candidate_2 in generator.uniform(0.0, np.array(shape_KL), (_TRIES, 2)):
        if not len(places_A2) or np.hypot(*(places_A2 - candidate_2).T).min() >= spacing:
            places_A2 = np.vstack([places_A2, candidate_2])
    strengths_A = generator.uniform(0.3, 0.9, len(places_A2))  # rad at an atom's centre
    rows_AK, columns_AL = (
        np.exp(-0.5 * ((np.arange(size) - places_A2[:, axis, None]) / radius) ** 2)
        for axis, size in enumerate(shape_KL)
    )
    phase_KL: NDArray[np.float64] = (strengths_A[:, None] * rows_AK).T @ columns_AL
    return phase_KL


def patterns(
    object_KL: NDArray[np.complex128], probe_YX: NDArray[np.complex128], positions_N2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the intensities that a probe makes at positions (of its centre, in pixels); zero frequency at [0, 0]."""
    return patterns_of_slices(object_KL[None], probe_YX[None], positions_N2, np.ones_like(probe_YX))


def patterns_of_slices(
    slices_SKL: NDArray[np.complex128],
    probes_NYX: NDArray[np.complex128],
    positions_N2: NDArray[np.float64],
    between_YX: NDArray[np.complex128],
) -> NDArray[np.float64]:
    """Return the intensities that a probe makes; zero frequency at [0, 0].

    Args:
        slices_SKL: Transmission of each slice, in the order in which the wave passes through them.
        probes_NYX: The probe at each position, or (1, Y, X) at all.
        positions_N2: Where its centre is, in pixels.
        between_YX: By what the wave's Fourier transform is multiplied between slices.
    """
    height, width = probes_NYX.shape[1:]
    spectra_NYX = np.fft.fft2(probes_NYX)
    frequency_Y, frequency_X = np.fft.fftfreq(height), np.fft.fftfreq(width)
    intensities_NYX = np.empty((len(positions_N2), height, width))
    for point, (row, column) in enumerate(positions_N2):
        top, left = round(row) - height // 2, round(column) - width // 2
        off = (row - round(row), column - round(column))
        ramp_YX = np.exp(-2j * np.pi * (frequency_Y[:, None] * off[0] + frequency_X[None, :] * off[1]))
        spectrum_YX = spectra_NYX[point if len(spectra_NYX) > 1 else 0]
        exit_YX = np.fft.ifft2(spectrum_YX * ramp_YX) * slices_SKL[0, top : top + height, left : left + width]
        for slice_KL in slices_SKL[1:]:
            wave_YX = np.fft.ifft2(np.fft.fft2(exit_YX) * between_YX)
            exit_YX = wave_YX * slice_KL[top : top + height, left : left + width]
        intensities_NYX[point] = np.abs(np.fft.fft2(exit_YX, norm="ortho")) ** 2
    return intensities_NYX


def _squared_frequencies(shape: tuple[int, int], pixel_size: float) -> NDArray[np.float64]:
    along_Y, along_X = (np.fft.fftfreq(size, pixel_size) for size in shape)
    squared_YX: NDArray[np.float64] = along_Y[:, None] ** 2 + along_X[None, :] ** 2
    return squared_YX
