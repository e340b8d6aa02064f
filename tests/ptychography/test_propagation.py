"""Free-space propagation, held against Gaussian beams, a lens in focus, and the formula in numpy's double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainkit_ptychography.physics.optics import aperture_probe
from trainkit_ptychography.physics.propagation import fresnel_kernel, propagate
from trainkit_ptychography.propagators.fresnel import Fresnel
from trainkit_ptychography.propagators.kind import WaveGeometry

GENERATOR = np.random.default_rng(7)
PIXEL, WAVELENGTH, SHAPE = 0.2, 0.04, (96, 80)


def kernel(*distances: float, shape: tuple[int, int] = SHAPE, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    geometry = WaveGeometry(shape, PIXEL, WAVELENGTH)
    return Fresnel().build(geometry)(torch.tensor(distances, dtype=dtype))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_kernel_is_the_formula(dtype, within):
    rows_Y, columns_X = (np.fft.fftfreq(size, PIXEL) for size in SHAPE)
    squared_YX = rows_Y[:, None] ** 2 + columns_X[None, :] ** 2
    found = kernel(10.0, -3.0, dtype=dtype)
    for place, distance in enumerate((10.0, -3.0)):
        expected = np.exp(-1j * np.pi * WAVELENGTH * distance * squared_YX)
        np.testing.assert_allclose(found[place].numpy(), expected, rtol=0, atol=within)


def test_a_gaussian_beam_spreads_and_curves_as_it_should():
    """ψ(r, z) = w₀/w · exp(−r²/w²) · exp(iπr²/λR − i·atan(z/z_R)), where exp(+2πi z/λ) is left out."""
    waist, distance = 1.2, 60.0
    rayleigh = np.pi * waist**2 / WAVELENGTH
    away = [PIXEL * (np.arange(size) - size // 2) for size in SHAPE]
    squared_YX = away[0][:, None] ** 2 + away[1][None, :] ** 2
    width = waist * np.sqrt(1 + (distance / rayleigh) ** 2)
    radius = distance * (1 + (rayleigh / distance) ** 2)
    expected_YX = waist / width * np.exp(-squared_YX / width**2 + 1j * np.pi * squared_YX / (WAVELENGTH * radius))
    expected_YX = expected_YX * np.exp(-1j * np.arctan(distance / rayleigh))
    found_YX = propagate(torch.from_numpy(np.exp(-squared_YX / waist**2) + 0j), kernel(distance)[0]).numpy()
    np.testing.assert_allclose(found_YX, expected_YX, rtol=0, atol=1e-6)


def test_an_underfocused_probe_is_in_focus_after_as_much_space_as_its_defocus():
    probes = {
        defocus: torch.from_numpy(aperture_probe(SHAPE[:1] * 2, PIXEL, WAVELENGTH, 25.0, {"C10": (-defocus, 0.0)}))
        for defocus in (0.0, 40.0)
    }
    after = propagate(probes[40.0], kernel(40.0, shape=SHAPE[:1] * 2)[0])
    torch.testing.assert_close(after, probes[0.0], rtol=0, atol=1e-12)
    before = propagate(probes[0.0], kernel(-40.0, shape=SHAPE[:1] * 2)[0])
    torch.testing.assert_close(before, probes[40.0], rtol=0, atol=1e-12)


def test_no_power_is_lost_and_two_steps_are_one():
    wave = torch.from_numpy(GENERATOR.normal(size=(3, *SHAPE)) + 1j * GENERATOR.normal(size=(3, *SHAPE)))
    first, second, both = kernel(7.0, 5.0, 12.0)
    torch.testing.assert_close(propagate(wave, first).abs().square().sum((1, 2)), wave.abs().square().sum((1, 2)))
    torch.testing.assert_close(propagate(propagate(wave, first), second), propagate(wave, both))


def test_gradients_of_the_distance_are_those_of_finite_differences():
    wave = torch.from_numpy(GENERATOR.normal(size=(6, 5)) + 1j * GENERATOR.normal(size=(6, 5)))

    def magnitude(distance_S: torch.Tensor) -> torch.Tensor:
        return propagate(wave.real.exp() * wave, fresnel_kernel((6, 5), PIXEL, WAVELENGTH, distance_S)).real

    assert torch.autograd.gradcheck(magnitude, [torch.tensor([3.0, -8.0], dtype=torch.float64, requires_grad=True)])
