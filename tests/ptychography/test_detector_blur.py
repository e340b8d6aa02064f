"""The blur of a detector in the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, special

from trainkit import Context, Problem
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.physics.detector import blurred, transfer
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.6])
@pytest.mark.parametrize("shape", [(24, 20), (15, 18)])
def test_patterns_are_convolved_with_a_gaussian_integrated_over_pixels(sigma, shape):
    patterns = np.random.default_rng(1).random((2, *shape)) ** 8
    offsets = np.arange(-9, 10)
    edges = special.ndtr((np.append(offsets, 10) - 0.5) / sigma)
    kernel = np.diff(edges)
    expected = patterns
    for axis in (1, 2):
        expected = ndimage.convolve1d(expected, kernel, axis=axis, mode="wrap")
    found = blurred(torch.from_numpy(patterns), transfer(shape, sigma, torch.float64, CPU)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum((1, 2)), patterns.sum((1, 2)), rtol=1e-12)


def test_a_single_lit_pixel_makes_no_negative_neighbour_and_gradients_are_those_of_finite_differences():
    pattern = torch.zeros(1, 9, 8, dtype=torch.float64)
    pattern[0, 2, 3] = 1.0
    assert blurred(pattern, transfer((9, 8), 0.3, torch.float64, CPU)).min() >= 0
    function = transfer((9, 8), 0.8, torch.float64, CPU)
    some = torch.rand(1, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda patterns: blurred(patterns, function), some)


def test_a_model_with_blur_expects_blurred_patterns_and_none_by_default():
    data = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24).build(Context(0, CPU, Path()))
    batch = {"index": torch.arange(5)}
    sharp = Ptychography(probe=Aperture()).build(data)(batch)["intensities"].detach()
    blur = Ptychography(probe=Aperture(), detector_blur_pixels=0.9).build(data)(batch)["intensities"].detach()
    expected = blurred(sharp, transfer((24, 24), 0.9, torch.float32, CPU))
    torch.testing.assert_close(blur, expected)
    assert float((blur - sharp).abs().max()) > 0.05 * float(sharp.max())


def test_a_blur_wider_than_that_of_any_detector_is_pointed_out(tmp_path):
    recipe = resolve_text(small_recipe("detector_blur_pixels = 30.0"), tmp_path).recipe
    (warning,) = [each for each in recipe.model.problems(recipe) if isinstance(each, Problem)]
    assert warning.severity == "warning"
    assert "pixels of the detector" in warning.message
