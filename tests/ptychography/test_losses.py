"""Losses and regularisers, held against formulas written out in numpy and against what statistics says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Loss, Problem
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.losses.amplitude import Amplitude
from trainkit_ptychography.losses.intensity import Intensity
from trainkit_ptychography.losses.poisson import Poisson
from trainkit_ptychography.losses.position_anchor import PositionAnchor
from trainkit_ptychography.losses.tv import TotalVariation
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.kind import DiffractionData
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

GENERATOR = np.random.default_rng(5)
MODULE = torch.nn.Module()
COUNTS = 700.0


def value_of(
    loss: Loss, intensities_BYX: np.ndarray, measured_BYX: np.ndarray, mask_YX: np.ndarray | None = None
) -> float:
    """Both in units of a mean pattern's total."""
    mask = None if mask_YX is None else torch.from_numpy(mask_YX)
    function = loss.build(SimpleNamespace(mask_YX=mask, mean_counts=COUNTS))
    batch = {"amplitudes": torch.from_numpy(np.sqrt(measured_BYX))}
    return float(function({"intensities": torch.from_numpy(intensities_BYX)}, batch, MODULE))


def patterns(*shape: int) -> np.ndarray:
    raw = GENERATOR.random(shape)
    return raw / raw.sum((1, 2), keepdims=True)


def test_the_intensity_loss_is_its_formula():
    found, measured = patterns(4, 6, 5), patterns(4, 6, 5)
    relative = (found - measured) / (1 / 30)  # a pixel's mean intensity is a thirtieth of the total
    assert value_of(Intensity(), found, measured) == pytest.approx((relative**2).mean((1, 2)).mean(), rel=1e-12)


def test_the_poisson_loss_is_the_likelihood_that_is_missing():
    expected, counts = patterns(4, 6, 5), GENERATOR.poisson(COUNTS * patterns(4, 6, 5)).astype(float)
    counts[:, 0, :2] = 0.0
    log_factorial = np.vectorize(lambda n: np.log(np.arange(1, n + 1)).sum())(counts.astype(int))

    def likelihood(mean: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, counts * np.log(mean), 0.0) - mean - log_factorial

    missing = likelihood(counts) - likelihood(COUNTS * expected + 0.01)
    assert value_of(Poisson(), expected, counts / COUNTS) == pytest.approx(missing.sum((1, 2)).mean(), rel=1e-9)


def test_the_poisson_losses_background_follows_the_counts_unless_it_is_given():
    for size, background in ((6, 1e-2), (60, 3e-3 * COUNTS / 60**2)):
        found, measured = patterns(2, size, size), patterns(2, size, size)
        for given, same in ((background, True), (2 * background, False)):
            value = value_of(Poisson(epsilon_counts=given), found, measured)
            assert (value_of(Poisson(), found, measured) == value) is same


def test_noise_alone_costs_the_poisson_loss_half_a_lit_pixel():
    true = np.full((50, 20, 20), 40.0)  # counts
    measured = GENERATOR.poisson(true).astype(float)
    assert value_of(Poisson(), true / COUNTS, measured / COUNTS) == pytest.approx(400 / 2, rel=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_poisson_loss_is_finite_where_no_light_falls_or_none_is_expected_and_for_millions_of_counts(dtype):
    function = Poisson().build(SimpleNamespace(mask_YX=None, mean_counts=3e6))
    expected = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]], dtype=dtype, requires_grad=True)
    counted = torch.tensor([[[0.0, 0.5, 0.0, 0.5]]], dtype=dtype)
    loss = function({"intensities": expected}, {"amplitudes": counted.sqrt()}, MODULE)
    loss.backward()
    assert loss.isfinite()
    assert expected.grad is not None
    assert expected.grad.isfinite().all()
    assert expected.grad[0, 0, 0] > 0  # light where none was counted: less of it
    assert expected.grad[0, 0, 1] < 0  # no light where some was counted: more of it
    assert abs(expected.grad[0, 0, 3]) < 1e-3 * expected.grad[0, 0, 0]


def test_the_poisson_loss_is_least_at_the_true_intensity_where_the_amplitude_loss_is_not():
    """At few counts the root of a count is less than the root of its mean, so the amplitude loss wants less light."""
    true, scales = 0.7, np.linspace(0.6, 1.2, 31)
    counts = GENERATOR.poisson(true, (1, 200, 200)).astype(float)
    best = {}
    for loss in (Poisson(epsilon_counts=1e-6), Amplitude()):
        values = [value_of(loss, np.full_like(counts, scale * true / COUNTS), counts / COUNTS) for scale in scales]
        best[type(loss)] = float(scales[int(np.argmin(values))])
    assert best[Poisson] == pytest.approx(1.0, abs=0.03)
    assert best[Amplitude] < 0.75


@pytest.mark.parametrize("loss", [Amplitude(), Poisson(), Intensity()], ids=lambda loss: type(loss).__name__)
def test_masked_pixels_have_no_say_and_the_others_count_as_before(loss):
    found, measured = patterns(3, 6, 5), patterns(3, 6, 5)
    mask = np.ones((6, 5), dtype=bool)
    mask[2, 1:4] = False
    full = value_of(loss, found, measured)
    masked = value_of(loss, found, measured, mask)
    assert masked < full
    agreeing = np.where(mask, found, measured)  # where the model is right, it costs nothing
    assert masked == pytest.approx(value_of(loss, agreeing, measured), rel=1e-3 if isinstance(loss, Poisson) else 1e-6)
    wild = np.where(mask, measured, 50.0)
    assert value_of(loss, found, wild, mask) == pytest.approx(masked, rel=1e-12)
    assert value_of(loss, found, measured, np.ones_like(mask)) == pytest.approx(full, rel=1e-12)


COMBINES = [
    (Amplitude(), "mean"),
    (Intensity(), "mean"),
    (Poisson(), "mean"),
    (PositionAnchor(sigma_pixels=0.3), "mean"),
    (TotalVariation(), "once"),
]


@pytest.mark.parametrize(("loss", "combine"), COMBINES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_costs_what_its_parts_do_as_each_loss_says_they_combine(loss, combine, masked):
    """Mean: parts weighted by their number of patterns make up the whole. Once: each part gives the whole's value."""
    assert loss.combine() == combine
    data, model = built()
    if masked:
        data.mask_YX = torch.ones(data.detector_shape, dtype=torch.bool)
        data.mask_YX[3:7, 5:] = False
    with torch.no_grad():
        model.dr.copy_(torch.from_numpy(GENERATOR.normal(0.0, 0.3, size=(16, 2))))
        model.object.maps += torch.from_numpy(GENERATOR.normal(0.0, 0.1, size=tuple(model.object.maps.shape)))
    function = loss.build(data)
    (batch,) = data.evaluate("train")
    cut = 5
    parts = [{name: value[part] for name, value in batch.items()} for part in (slice(cut), slice(cut, None))]
    with torch.no_grad():
        whole, *values = (float(function(model(each), each, model)) for each in (batch, *parts))
    num = len(batch["index"])
    joined = (cut * values[0] + (num - cut) * values[1]) / num if combine == "mean" else values[0]
    assert joined == pytest.approx(whole, rel=1e-5)


def test_losses_of_patterns_are_for_diffraction_data_alone():
    assert {loss.accepts for loss, _ in COMBINES} == {DiffractionData}


# ---- position_anchor ------------------------------------------------------------------------------------------------


def built() -> tuple[Any, Any]:
    settings = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24)
    data = settings.build(Context(0, torch.device("cpu"), Path()))
    return data, Ptychography(probe=Aperture()).build(data)


def test_the_anchor_is_a_gaussian_in_pixels_or_in_angstrom():
    data, model = built()
    moved = GENERATOR.normal(size=(16, 2))
    with torch.no_grad():
        model.dr.copy_(torch.from_numpy(moved))
    batch = {"index": torch.tensor([1, 5, 11])}
    expected = (moved[[1, 5, 11]] ** 2).sum(1).mean() / (2 * 0.3**2)
    in_pixels = PositionAnchor(sigma_pixels=0.3).build(data)({}, batch, model)
    in_angstrom = PositionAnchor(sigma_angstrom=0.3 * 0.4).build(data)({}, batch, model)
    assert float(in_pixels.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(in_angstrom.detach()) == pytest.approx(expected, rel=1e-5)
    in_pixels.backward()
    assert model.dr.grad is not None
    assert model.dr.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 5, 11]


def test_an_anchor_in_angstrom_needs_a_pixel_size():
    data, _ = built()
    data.scan = attrs.evolve(data.scan, pixel_size_angstrom=None)
    with pytest.raises(DataError, match="use sigma_pixels"):
        PositionAnchor(sigma_angstrom=0.1).build(data)


RECIPE = """
trainkit = 1
[run]
name = "anchored"
epochs = 2
[data]
use = "diffraction_simulated"
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "poisson"
[losses.anchor]
use = "position_anchor"
sigma_pixels = 0.3
[optimizer]
use = "adam"
"""


def test_an_anchor_asks_for_one_sigma_and_for_positions_that_move(tmp_path):
    recipe = resolve_text(RECIPE, tmp_path).recipe
    assert "either sigma_pixels or sigma_angstrom" in str(next(iter(PositionAnchor().problems(recipe))))
    both = PositionAnchor(sigma_pixels=0.1, sigma_angstrom=0.1)
    assert "either sigma_pixels or sigma_angstrom" in str(next(iter(both.problems(recipe))))
    (warning,) = PositionAnchor(sigma_pixels=0.1).problems(recipe)
    assert isinstance(warning, Problem)
    assert "dr never trains" in warning.message
    moving = resolve_text(RECIPE + "[groups.dr]\nstart_epoch = 1\n", tmp_path).recipe
    assert not list(PositionAnchor(sigma_pixels=0.1).problems(moving))
