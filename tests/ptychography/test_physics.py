"""Optics, forward model, geometry and quality, held against formulas written out in numpy and against known values."""

from __future__ import annotations

from math import cos, pi, radians, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit import DataError
from trainkit_ptychography.physics.forward import fourier_ramp, intensities
from trainkit_ptychography.physics.geometry import AffineMotion, place
from trainkit_ptychography.physics.optics import aperture, aperture_probe, electron_wavelength, scattering_angles
from trainkit_ptychography.physics.quality import TruthInBox, phase_agreement, phase_pearson, position_rmse

GENERATOR = np.random.default_rng(11)


def random_complex(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape) + 1j * GENERATOR.normal(size=shape)


def by_hand(probe_MYX: np.ndarray, shift_B2: np.ndarray, patch_BYX: np.ndarray) -> np.ndarray:
    """The formula, one pattern, one mode, one pixel's ramp at a time."""
    height, width = probe_MYX.shape[1:]
    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    found = np.zeros(patch_BYX.shape)
    for pattern, ((down, right), patch) in enumerate(zip(shift_B2, patch_BYX, strict=True)):
        ramp = np.array([[np.exp(-2j * pi * (y * down + x * right)) for x in columns] for y in rows])
        for mode in probe_MYX:
            far = np.fft.fft2(np.fft.ifft2(np.fft.fft2(mode) * ramp) * patch, norm="ortho")
            found[pattern] += np.abs(far) ** 2
    return found


# ---- optics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("energy_kev", "picometres"),
    [
        (60.0, 4.8661),
        (80.0, 4.1757),
        (200.0, 2.5079),
        (300.0, 1.9687),
    ],  # tables of Reimer and Kohl, Williams and Carter
)
def test_the_wavelength_is_that_of_the_tables(energy_kev, picometres):
    assert electron_wavelength(energy_kev) == pytest.approx(picometres / 100, rel=1e-4)


@pytest.mark.parametrize("energy_kev", [0.0, -1.0, float("nan")])
def test_an_energy_that_is_not_positive_is_refused_with_its_unit(energy_kev):
    with pytest.raises(DataError, match=r"above 0 keV, got .* keV"):
        electron_wavelength(energy_kev)


def test_an_aberrated_probe_is_the_formula_written_out():
    size, pixel, wavelength, semiangle = 24, 0.4, 0.0418, 25.0
    coefficients = {
        "C10": (-60.0, 0.0),
        "C12": (20.0, radians(15)),
        "C21": (900.0, radians(40)),
        "C23": (700.0, radians(-20)),
        "C30": (3e4, 0.0),
        "C32": (2e4, radians(70)),
        "C34": (1e4, radians(10)),
    }
    expected = np.zeros((size, size), dtype=complex)
    for i, down in enumerate(np.fft.fftfreq(size, pixel)):
        for j, right in enumerate(np.fft.fftfreq(size, pixel)):
            alpha, phi = wavelength * sqrt(down**2 + right**2), np.angle(right + 1j * down)
            (c10, _), (c12, p12), (c21, p21), (c23, p23), (c30, _), (c32, p32), (c34, p34) = coefficients.values()
            path = alpha**2 / 2 * (c10 + c12 * cos(2 * (phi - p12)))
            path += alpha**3 / 3 * (c21 * cos(phi - p21) + c23 * cos(3 * (phi - p23)))
            path += alpha**4 / 4 * (c30 + c32 * cos(2 * (phi - p32)) + c34 * cos(4 * (phi - p34)))
            inside = min(1.0, max(0.0, (semiangle * 1e-3 - alpha) / (wavelength / (size * pixel)) + 0.5))
            expected[i, j] = inside * np.exp(-2j * pi / wavelength * path)
    expected = np.fft.fftshift(np.fft.ifft2(expected))
    expected /= np.linalg.norm(expected)
    probe = aperture_probe((size, size), pixel, wavelength, semiangle, coefficients)
    np.testing.assert_allclose(probe, expected, atol=1e-13)


def test_a_probe_in_focus_is_brightest_at_its_centre_and_has_power_one():
    probe = aperture_probe((32, 30), 0.4, 0.0418, 25.0, {"C10": (0.0, 0.0)})
    assert np.unravel_index(np.abs(probe).argmax(), probe.shape) == (16, 15)
    assert (np.abs(probe) ** 2).sum() == pytest.approx(1.0, abs=1e-12)


def test_defocus_spreads_the_probe_as_far_as_rays_would():
    defocus, semiangle, pixel = 400.0, 25.0, 0.4
    probe = aperture_probe((128, 128), pixel, 0.0418, semiangle, {"C10": (-defocus, 0.0)})
    rows, columns = np.indices(probe.shape) - 64
    mean_square = (np.abs(probe) ** 2 * (rows**2 + columns**2)).sum() * pixel**2
    disc = defocus * semiangle * 1e-3  # radius of the geometric shadow of the aperture
    assert sqrt(mean_square) == pytest.approx(disc / sqrt(2), rel=0.05)


def test_the_aperture_has_the_area_that_its_angle_says():
    polar, _ = scattering_angles((64, 64), 0.4, 0.0418)
    per_pixel = 0.0418 / (64 * 0.4)
    opened = aperture(polar, 25e-3, (per_pixel, per_pixel))
    assert opened.sum() * per_pixel**2 == pytest.approx(pi * 25e-3**2, rel=0.01)


def test_an_aperture_wider_than_the_detector_is_refused_with_both_angles():
    with pytest.raises(DataError, match=r"60 mrad does not fit .* 52\.2 mrad"):
        aperture_probe((64, 64), 0.4, 0.041757, 60.0, {})


# ---- forward model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modes", "shape"), [(1, (8, 8)), (3, (8, 8)), (2, (7, 10))])
def test_intensities_are_the_formula_in_numpy(modes, shape):
    probe, shift, patch = random_complex(modes, *shape), GENERATOR.normal(size=(4, 2)), random_complex(4, *shape)
    found = intensities(*(torch.from_numpy(array) for array in (probe, shift, patch)))
    np.testing.assert_allclose(found.numpy(), by_hand(probe, shift, patch), rtol=1e-12, atol=1e-12)


def test_gradients_of_probe_shift_and_object_are_those_of_finite_differences():
    arguments = [
        torch.from_numpy(array).requires_grad_()
        for array in (random_complex(2, 6, 5), GENERATOR.normal(size=(3, 2)), random_complex(3, 6, 5))
    ]
    assert torch.autograd.gradcheck(intensities, arguments)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_a_frozen_argument_changes_no_other_gradient(wanted):
    arrays = (random_complex(2, 6, 5), GENERATOR.normal(size=(3, 2)), random_complex(3, 6, 5))

    def gradients(which: tuple[int, ...]) -> dict[int, torch.Tensor]:
        tensors = [torch.from_numpy(array.copy()).requires_grad_(i in which) for i, array in enumerate(arrays)]
        intensities(*tensors).square().sum().backward()
        return {i: tensor.grad for i, tensor in enumerate(tensors) if tensor.grad is not None}

    every, some = gradients((0, 1, 2)), gradients(wanted)
    assert set(some) == set(wanted)
    for which, gradient in some.items():
        assert torch.equal(gradient, every[which])


def test_no_light_is_lost_between_specimen_and_detector():
    probe, shift, patch = random_complex(2, 8, 8), GENERATOR.normal(size=(3, 2)), random_complex(3, 8, 8)
    shifted = np.fft.ifft2(np.fft.fft2(probe)[:, None] * fourier_ramp(torch.from_numpy(shift), (8, 8)).numpy())
    leaving = (np.abs(shifted * patch) ** 2).sum(axis=(0, 2, 3))
    arriving = intensities(*(torch.from_numpy(array) for array in (probe, shift, patch))).sum((1, 2))
    np.testing.assert_allclose(arriving.numpy(), leaving, rtol=1e-12)


def test_an_empty_object_shows_the_probes_own_pattern_wherever_the_probe_is():
    probe, shift = random_complex(2, 8, 8), GENERATOR.normal(size=(5, 2))
    found = intensities(torch.from_numpy(probe), torch.from_numpy(shift), torch.ones(5, 8, 8, dtype=torch.complex128))
    own = (np.abs(np.fft.fft2(probe, norm="ortho")) ** 2).sum(0)
    np.testing.assert_allclose(found.numpy(), np.broadcast_to(own, found.shape), rtol=1e-11)


def test_the_ramp_moves_a_gaussian_to_where_its_formula_puts_it():
    size, sigma, moved = 32, 2.5, (0.37, -1.28)
    rows, columns = np.indices((size, size)) - size // 2
    still = np.exp(-(rows**2 + columns**2) / (2 * sigma**2))
    expected = np.exp(-((rows - moved[0]) ** 2 + (columns - moved[1]) ** 2) / (2 * sigma**2))
    ramp = fourier_ramp(torch.tensor([moved], dtype=torch.float64), (size, size)).numpy()[0]
    np.testing.assert_allclose(np.fft.ifft2(np.fft.fft2(still) * ramp), expected, atol=1e-7)


def test_a_shift_by_whole_pixels_is_exact():
    array = random_complex(6, 9)
    ramp = fourier_ramp(torch.tensor([[2.0, -3.0]], dtype=torch.float64), (6, 9)).numpy()[0]
    np.testing.assert_allclose(np.fft.ifft2(np.fft.fft2(array) * ramp), np.roll(array, (2, -3), (0, 1)), atol=1e-13)


# ---- geometry -------------------------------------------------------------------------------------------------------


@given(
    points=st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1, max_size=12),
    margin=st.integers(0, 9),
)
def test_every_patch_lies_in_the_object_at_least_the_margin_from_its_edge(points, margin):
    positions, shape = np.array(points), (6, 9)
    placed = place(positions, shape, margin)
    assert (np.abs(placed.remainder_N2) <= 0.5).all()
    assert (placed.corner_N2 >= margin).all()
    assert (placed.corner_N2 + shape + margin <= placed.shape_HW).all()
    # Corner, remainder and origin together give back the position of the patch's centre.
    centre = placed.corner_N2 + placed.remainder_N2 + np.array([3, 4]) + placed.origin_2
    np.testing.assert_allclose(centre, positions, atol=1e-9)


def test_whole_positions_have_no_remainder():
    assert not place(GENERATOR.integers(-50, 50, (20, 2)).astype(float), (8, 8), 3).remainder_N2.any()


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_an_affine_displacement_is_found_exactly_and_anything_else_is_left(far):
    positions = torch.from_numpy(GENERATOR.uniform(0, 60, (200, 2)) + far)
    matrix = torch.tensor([[0.02, -0.01, 0.7], [0.015, -0.03, -0.4]], dtype=torch.float64)
    matrix[:, 2] -= matrix[:, :2].sum(1) * far
    affine = torch.cat([positions, torch.ones(200, 1)], 1) @ matrix.T
    motion, found = AffineMotion(positions).within(affine)
    torch.testing.assert_close(motion, affine, rtol=0, atol=1e-10)
    torch.testing.assert_close(found, matrix, rtol=1e-9, atol=1e-10)

    rest = torch.from_numpy(GENERATOR.normal(size=(200, 2)))
    rest -= AffineMotion(positions).within(rest)[0]
    torch.testing.assert_close(AffineMotion(positions).within(affine + rest)[0], affine, rtol=0, atol=1e-10)
    # What is left is what least squares, written out, leaves.
    design = np.column_stack([positions.numpy() - far, np.ones(200)])
    noise = GENERATOR.normal(size=(200, 2))
    fitted = design @ np.linalg.lstsq(design, noise, rcond=None)[0]
    np.testing.assert_allclose(AffineMotion(positions).within(torch.from_numpy(noise))[0].numpy(), fitted, atol=1e-10)


def test_a_scan_along_a_line_has_an_affine_part_too():
    positions = torch.stack([torch.arange(9.0), torch.zeros(9)], 1).double()
    displacement = torch.stack([0.1 * positions[:, 0] + 2, 0.3 * positions[:, 0]], 1)
    torch.testing.assert_close(AffineMotion(positions).within(displacement)[0], displacement)


# ---- quality --------------------------------------------------------------------------------------------------------


def smooth_phase(size: int = 40) -> np.ndarray:
    low = np.zeros((size, size), dtype=complex)
    low[:6, :6] = random_complex(6, 6)
    return np.fft.ifft2(low).real


def test_a_shifted_and_scaled_phase_correlates_fully_with_the_truth():
    truth = smooth_phase()
    frequency = np.fft.fftfreq(40)
    ramp = np.exp(2j * pi * (frequency[:, None] * 0.63 - frequency[None, :] * 1.21))
    moved = np.fft.ifft2(np.fft.fft2(truth) * ramp).real
    origin = np.array([4.0, -3.0])
    reconstruction = 2.5 * np.roll(moved, (-4, 3), (0, 1)) + 0.8
    r, gain = phase_agreement(reconstruction, origin, truth, ((8.0, 28.0), (5.0, 30.0)))
    assert r > 0.9999
    assert gain == pytest.approx(2.5, rel=1e-3)  # r does not see it


@pytest.mark.parametrize("shape", [(40, 40), (39, 42)])
def test_a_kept_comparison_finds_for_each_phase_what_a_new_one_finds_and_numpy_too(shape: tuple[int, int]):
    low = np.zeros(shape, dtype=complex)
    low[:6, :6] = random_complex(6, 6)
    truth, origin, box = np.fft.ifft2(low).real, np.array([4.0, -3.0]), ((8.0, 28.0), (5.0, 30.0))
    kept = TruthInBox(truth, origin, box)
    down, right = 0.62, -1.2
    rows, columns = (np.fft.fftfreq(size) for size in shape)
    ramp = np.add.outer(rows * (origin[0] + down), columns * (origin[1] + right))
    moved = np.fft.ifft2(np.fft.fft2(truth) * np.exp(2j * pi * ramp)).real  # at the best shift
    for strength in (0.0, 0.3, 0.3, 0.6):
        phase = moved + strength * truth.std() * GENERATOR.normal(size=shape)
        found = kept.agreement(phase)
        assert found == TruthInBox(truth, origin, box).agreement(phase)
        seen, meant = (each[4:25, 8:34].ravel() for each in (phase, moved))
        if strength < 0.5:
            assert found.pearson == pytest.approx(np.corrcoef(seen, meant)[0, 1], abs=3e-3)
        assert found.pearson >= np.corrcoef(seen, meant)[0, 1] - 1e-12  # no shift is better than the best


def test_an_unrelated_phase_does_not_correlate_and_an_empty_one_gives_zero():
    truth = GENERATOR.normal(size=(40, 40))
    box = ((2.0, 37.0), (2.0, 37.0))
    assert abs(phase_pearson(GENERATOR.normal(size=(40, 40)), np.zeros(2), truth, box)) < 0.2
    assert phase_pearson(np.ones((40, 40)), np.zeros(2), truth, box) == 0.0


def test_position_error_ignores_a_common_offset_and_is_a_coordinates_root_mean_square():
    true = GENERATOR.uniform(0, 50, (4000, 2))
    wrong = true + GENERATOR.normal(0.0, 0.3, true.shape)
    assert position_rmse(true + 7.0, true) == pytest.approx(0.0, abs=1e-12)
    assert position_rmse(wrong + np.array([5.0, -2.0]), true) == pytest.approx(0.3, rel=0.05)
