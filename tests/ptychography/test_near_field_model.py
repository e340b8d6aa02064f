"""Propagation to a detector in the near field, held against formulas in numpy and against analytic diffraction."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import pytest
import torch
from scipy.special import fresnel

from trainkit import DataError
from trainkit_ptychography.detector_propagations.far_field import FarField
from trainkit_ptychography.detector_propagations.kind import ExitWave
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.physics.propagation import propagate

GENERATOR = np.random.default_rng(5)
WAVELENGTH, PIXEL = 1.24, 5000.0  # Å: 10 keV, half a micrometre


def transfer(shape: tuple[int, int], distance_m: float, focus_mm: float | None = None, pixel: float = PIXEL):
    found = NearField(focus_distance_mm=focus_mm).transfer(ExitWave(shape, pixel, WAVELENGTH, distance_m, "a scan"))
    assert found is not None
    return found


def random_complex(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape) + 1j * GENERATOR.normal(size=shape)


def of_a_wave(wave_YX: np.ndarray, distance_m: float, **how: float) -> np.ndarray:
    """The model's pattern behind a wave, its middle at the array's middle."""
    empty, still = torch.ones(1, *wave_YX.shape, dtype=torch.complex128), torch.zeros(1, 2, dtype=torch.float64)
    found = intensities(torch.from_numpy(wave_YX)[None], still, empty, transfer(wave_YX.shape, distance_m, **how))
    return np.fft.fftshift(found[0].numpy())


@pytest.mark.parametrize("shape", [(8, 8), (7, 10)])
def test_patterns_are_those_of_the_probe_before_the_moved_specimen(shape):
    """In the frame of the detector the probe rests, and the object moves the other way."""
    probe, patch = random_complex(2, *shape), random_complex(3, *shape)
    shift = np.array([[0.0, 0.0], [0.3, -0.4], [-0.5, 0.2]])
    rows, columns = (np.fft.fftfreq(size) for size in shape)
    squared = (rows[:, None] ** 2 + columns**2) / PIXEL**2
    kernel = np.exp(-1j * pi * WAVELENGTH * 5e7 * squared)  # 5 mm
    expected = np.zeros(patch.shape)
    for number, (down, right) in enumerate(shift):
        ramp = np.exp(-2j * pi * (rows[:, None] * down + columns * right))
        for mode in probe:
            exit_wave = np.fft.ifft2(np.fft.fft2(mode) * ramp) * patch[number]
            back = np.fft.ifft2(np.fft.fft2(exit_wave) * kernel * ramp.conj())
            expected[number] += np.fft.ifftshift(np.abs(back) ** 2)
    arguments = [torch.from_numpy(each) for each in (probe, shift, patch)]
    found = intensities(*arguments, transfer(shape, 5e-3))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-12)


def test_a_pattern_has_the_power_of_the_exit_wave():
    probe, patch = (torch.from_numpy(each) for each in (random_complex(2, 9, 8), random_complex(3, 9, 8)))
    still = torch.zeros(3, 2, dtype=torch.float64)
    power = (probe[:, None] * patch).abs().square().sum((0, 2, 3))
    found = intensities(probe, still, patch, transfer((9, 8), 5e-3)).sum((1, 2))
    torch.testing.assert_close(found, power, rtol=1e-12, atol=0.0)


def plain(probe_MYX, shift_B2, patch_BYX, transfer_YX):
    """The same formula, left to autograd."""
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64) for size in patch_BYX.shape[1:])
    ramp_BYX = torch.exp(-2j * pi * (shift_B2[:, 0, None, None] * rows[:, None] + shift_B2[:, 1, None, None] * columns))
    exit_MBYX = torch.fft.ifft2(torch.fft.fft2(probe_MYX)[:, None] * ramp_BYX) * patch_BYX
    return torch.fft.ifft2(torch.fft.fft2(exit_MBYX) * transfer_YX * ramp_BYX.conj()).abs().square().sum(0)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_gradients_are_those_of_autograd(frozen):
    values = (random_complex(2, 9, 8), GENERATOR.uniform(-0.5, 0.5, (3, 2)), random_complex(3, 9, 8))
    weight, carry = torch.from_numpy(GENERATOR.normal(size=(3, 9, 8))), transfer((9, 8), 5e-3)
    gradients = []
    for model in (intensities, plain):
        arguments = [torch.from_numpy(each).requires_grad_(place != frozen) for place, each in enumerate(values)]
        (model(*arguments, carry) * weight).sum().backward()
        gradients.append([each.grad for each in arguments])
    for found, expected in zip(*gradients, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_the_gradient_along_the_distance_is_that_of_autograd_and_of_finite_differences():
    values = (random_complex(2, 9, 8), GENERATOR.uniform(-0.5, 0.5, (3, 2)), random_complex(3, 9, 8))
    arguments = [torch.from_numpy(each) for each in values]
    weight = torch.from_numpy(GENERATOR.normal(size=(3, 9, 8)))
    wave = ExitWave((9, 8), PIXEL, WAVELENGTH, 5e-3, "a scan")

    def misfit(model, stretched: torch.Tensor) -> torch.Tensor:
        return (model(*arguments, NearField().transfer(wave, stretched)) * weight).sum()

    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(misfit(model, one), one)[0] for model in (intensities, plain)]
    assert float(slopes[0]) == pytest.approx(float(slopes[1]), rel=1e-10)
    step = 1e-5
    difference = (misfit(intensities, one.detach() + step) - misfit(intensities, one.detach() - step)) / (2 * step)
    assert float(slopes[0]) == pytest.approx(float(difference), rel=1e-6)
    longer = ExitWave((9, 8), PIXEL, WAVELENGTH, 5.5e-3, "a scan")
    torch.testing.assert_close(NearField().transfer(wave, 1.1 * one), NearField().transfer(longer))


def test_a_gaussian_beam_spreads_as_the_formula_says():
    """Saleh, Teich, "Fundamentals of Photonics", section 3.1."""
    size, waist, distance_m = 128, 8 * PIXEL, 0.25
    away_sq = PIXEL**2 * ((np.arange(size) - size // 2)[:, None] ** 2 + (np.arange(size) - size // 2) ** 2)
    rayleigh = pi * waist**2 / WAVELENGTH
    width_sq = waist**2 * (1 + (1e10 * distance_m / rayleigh) ** 2)
    assert width_sq > 1.3 * waist**2
    expected = waist**2 / width_sq * np.exp(-2 * away_sq / width_sq)
    found = of_a_wave(np.exp(-away_sq / waist**2).astype(complex), distance_m)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_slit_has_the_fringes_of_the_fresnel_integrals():
    """Born, Wolf, "Principles of Optics", section 8.7; pixels are small, because the slit's edge is sharp."""
    size, width, pixel, distance_m = 4096, 800, 50.0, 0.4e-3
    wave = np.zeros((1, size), complex)
    wave[0, (size - width) // 2 : (size + width) // 2] = 1
    found = of_a_wave(wave, distance_m, pixel=pixel)[0]
    place = (np.arange(size) - size // 2 + 0.5) * pixel  # the slit's middle is between two pixels
    units = sqrt(2 / (WAVELENGTH * 1e10 * distance_m))
    sines, cosines = zip(*(fresnel(units * (place + side * width * pixel / 2)) for side in (-1, 1)), strict=True)
    expected = 0.5 * ((cosines[1] - cosines[0]) ** 2 + (sines[1] - sines[0]) ** 2)
    inside = np.abs(place) < 0.75 * width * pixel
    assert np.ptp(expected[inside]) > 1.3  # there are fringes
    assert np.abs(found - expected)[inside].max() < 0.02


def test_a_diverging_beam_is_a_parallel_one_at_the_effective_distance():
    """A Gaussian beam from its focus over a Gaussian stop: the detector's pattern by the complex beam parameter."""
    z1, z2, stop = 40e-3, 1.2, 1.2e4  # m, m, Å (radius of the amplitude's 1/e)
    magnification = (z1 + z2) / z1
    pixel = 6.5e4 / magnification  # Å, of a detector with pixels of 6.5 µm
    wave_number = 2 * pi / WAVELENGTH
    # Behind the stop the wave is exp(i k r²/(2 q)): a point source's curvature 1/z1, and the stop's 2i/(k stop²).
    q = 1 / (1 / (1e10 * z1) + 2j / (wave_number * stop**2))
    arrived = q + 1e10 * z2
    assert NearField(focus_distance_mm=40.0).object_pixel_angstrom(6.5, 96, WAVELENGTH, z2) == pytest.approx(pixel)
    size = 96
    place = np.arange(size) - size // 2
    away_sq = place[:, None] ** 2 + place**2
    expected = np.abs(q / arrived) ** 2 * np.exp(-wave_number * (1 / arrived).imag * away_sq * 6.5e4**2)
    found = of_a_wave(np.exp(-away_sq * pixel**2 / stop**2).astype(complex), z2, focus_mm=40.0, pixel=pixel)
    assert found.max() < 0.6  # it has spread
    np.testing.assert_allclose(found, expected * magnification**2, atol=1e-9)


def test_propagation_to_the_detector_is_that_between_slices_but_for_the_corner():
    wave = random_complex(12, 9)
    kernel = transfer((12, 9), 5e-3)
    moved = propagate(torch.from_numpy(wave), kernel).numpy()
    np.testing.assert_allclose(np.fft.fftshift(np.abs(moved) ** 2), of_a_wave(wave, 5e-3), atol=1e-12)


def test_without_a_distance_or_a_pixel_size_the_lines_to_add_are_named():
    with pytest.raises(DataError, match=r"set data\.detector_distance_m"):
        NearField().transfer(ExitWave((8, 8), PIXEL, WAVELENGTH, None, "a scan"))
    with pytest.raises(DataError, match=r"pixel_size_angstrom .*energy_kev"):
        NearField(effective_distance_mm=3.0).transfer(ExitWave((8, 8), None, None, None, "a scan"))


def test_the_far_field_has_no_transfer_function_and_the_pixels_of_a_fourier_transform():
    assert FarField().transfer(ExitWave((8, 8), None, None, None, "a scan")) is None
    # 0.5 m, 1.24 Å, 256 pixels of 55 µm: λ L / (N p)
    assert FarField().object_pixel_angstrom(55.0, 256, 1.24, 0.5) == pytest.approx(1.24 * 0.5 / (256 * 55e-6))
