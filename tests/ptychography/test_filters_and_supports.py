"""Constraints that filter the object, and those that keep the probe within a circle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Monitor, Problem, RecipeError, State
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.constraints.gaussian import Gaussian
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.low_pass import LowPass
from trainkit_ptychography.constraints.probe_aperture import ProbeAperture
from trainkit_ptychography.constraints.probe_support import ProbeSupport
from trainkit_ptychography.constraints.tv import TotalVariationStep
from trainkit_ptychography.constraints.tv_live import denoised
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.hash_encoding import HashEncoding
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

CONTEXT = Context(0, torch.device("cpu"), Path())
SIMULATED = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24)
DATA = SIMULATED.build(CONTEXT)
PIXEL = DATA.scan.pixel_size_angstrom
assert PIXEL is not None


def made(constraint: Constraint, **settings: Any) -> tuple[PtychographyModule, State]:
    model = Ptychography(probe=Aperture(modes=2), constraints={"it": constraint}, **settings).build(DATA)
    assert isinstance(model, PtychographyModule)
    state = State(CONTEXT, 4, model, DATA, {}, Monitor())
    state.step = 1
    return model, state


def imposed(constraint: Constraint, phase_HW: np.ndarray | None = None) -> np.ndarray:
    """Return the phase that a constraint makes of a phase."""
    model, state = made(constraint, object=Pixels(kind="phase_only"))
    with torch.no_grad():
        model.object.maps.copy_(torch.from_numpy(phase_HW))
    model.on_step_end(state)
    return model.reconstruction().phase_SHW[0]


def shape() -> tuple[int, int]:
    return made(LowPass(shortest_period_angstrom=1.0))[0].motion.shape_HW


def wave(periods: int) -> tuple[np.ndarray, float]:
    """A cosine along the rows, and its period in Å."""
    rows, columns = shape()
    values = 0.3 + np.cos(2 * np.pi * periods * np.arange(rows) / rows)
    return np.repeat(values[:, None], columns, 1), rows * PIXEL / periods


@pytest.mark.parametrize("periods", [2, 5, 9])
def test_a_wave_keeps_the_share_that_the_formula_of_each_filter_gives(periods):
    phase_HW, period = wave(periods)
    for constraint, share in (
        (LowPass(shortest_period_angstrom=1.5, order=3.0), 1 / (1 + (1.5 / period) ** 6)),
        (Gaussian(sigma_angstrom=0.4), np.exp(-2 * (np.pi * 0.4 / period) ** 2)),
        (Gaussian(sigma_angstrom=0.4, weight=0.25), 0.75 + 0.25 * np.exp(-2 * (np.pi * 0.4 / period) ** 2)),
    ):
        np.testing.assert_allclose(imposed(constraint, phase_HW), 0.3 + share * (phase_HW - 0.3), atol=2e-6)


def test_total_variation_of_a_noisy_step_falls_and_the_step_loses_as_much_height_as_the_theory_says():
    """A step of height h between two halves of n columns each loses weight/n on each side (Strong and Chan, 2003)."""
    num, weight = 20, 0.5
    step = np.repeat(np.repeat([[0.0, 1.0]], num, axis=1), 6, axis=0)
    found = denoised(torch.from_numpy(step)[None], weight, 4000)[0].numpy()
    np.testing.assert_allclose(found[:, :num], weight / num, atol=2e-3)
    np.testing.assert_allclose(found[:, num:], 1 - weight / num, atol=2e-3)
    noisy = step + 0.1 * np.random.default_rng(1).normal(size=step.shape)
    calm = denoised(torch.from_numpy(noisy)[None], 0.2, 300)[0].numpy()
    assert np.abs(calm - step).mean() < 0.5 * np.abs(noisy - step).mean()


def test_the_minimiser_of_total_variation_is_below_all_its_neighbours():
    values = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 7, 8)))

    def energy(u: torch.Tensor) -> float:
        down = torch.nn.functional.pad(u.diff(dim=1), (0, 0, 0, 1))
        right = torch.nn.functional.pad(u.diff(dim=2), (0, 1))
        return float(0.5 * (u - values).square().sum() + 0.3 * (down.square() + right.square()).sqrt().sum())

    best = denoised(values, 0.3, 5000)
    for seed in range(20):
        other = best + 0.01 * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed)).double()
        assert energy(best) < energy(other)


@pytest.mark.parametrize(
    "constraint",
    [LowPass(shortest_period_angstrom=1.0), Gaussian(sigma_angstrom=0.4), TotalVariationStep(weight_rad=0.1)],
)
def test_an_object_that_does_not_train_stays_and_one_without_pixels_is_refused(constraint):
    model, state = made(constraint)
    with torch.no_grad():
        model.object.maps.copy_(torch.randn(model.object.maps.shape))
    model.object.requires_grad_(False)
    before = model.object.maps.clone()
    model.on_step_end(state)
    assert torch.equal(model.object.maps, before)
    with pytest.raises(RecipeError, match="HashObject is none"):
        made(constraint, object=HashEncoding(levels=4))


# ---- the probe ------------------------------------------------------------------------------------------------------


def spoiled(constraint: Constraint) -> tuple[PtychographyModule, State]:
    """A model that trains its probe, whose modes have noise everywhere."""
    model, state = made(constraint)
    with torch.no_grad():
        model.probe.modes += 0.05 * torch.randn(model.probe.modes.shape, generator=torch.Generator().manual_seed(1))
    return model, state


def test_the_probe_is_zero_beyond_its_support_and_keeps_its_power():
    model, state = spoiled(ProbeSupport(radius_angstrom=3.0, edge_angstrom=0.5))
    model.on_step_end(state)
    probe_MYX = model.reconstruction().probe_MYX
    rows, columns = (np.arange(24) - 12,) * 2
    away = np.hypot(rows[:, None], columns) * PIXEL
    assert np.abs(probe_MYX[:, away > 3.25]).max() < 1e-7
    assert np.abs(probe_MYX[:, away < 2.75]).min() > 0
    assert (np.abs(probe_MYX) ** 2).sum() == pytest.approx(1.0, rel=1e-5)


def test_the_probe_has_no_light_beyond_its_aperture_or_within_a_central_stop():
    model, state = spoiled(ProbeAperture(semiangle_mrad=30.0, inner_mrad=8.0, edge_mrad=3.0))
    model.on_step_end(state)
    spectrum_MYX = np.fft.fft2(model.reconstruction().probe_MYX)
    frequency = np.fft.fftfreq(24, PIXEL)
    angle = 1e3 * DATA.scan.wavelength_angstrom * np.hypot(frequency[:, None], frequency)
    dark = (angle > 31.5) | (angle < 6.5)
    assert dark.sum() > 100
    assert np.abs(spectrum_MYX[:, dark]).max() < 1e-5 * np.abs(spectrum_MYX).max()


@pytest.mark.parametrize(
    "constraint", [ProbeSupport(radius_angstrom=2.0, edge_angstrom=2.0), ProbeAperture(semiangle_mrad=25.0)]
)
def test_a_limit_of_the_probe_that_holds_does_not_move_inwards_when_it_is_imposed_again(constraint):
    model, state = spoiled(constraint)
    before = model.probe.modes.detach().clone()
    model.on_step_end(state)
    once = model.probe.modes.detach().clone()
    assert not torch.allclose(once, before, atol=1e-3)
    for _ in range(300):
        model.on_step_end(state)
    torch.testing.assert_close(model.probe.modes.detach(), once, rtol=0, atol=1e-4)


def test_a_probe_that_does_not_train_stays_as_it_is():
    model, state = spoiled(ProbeSupport(radius_angstrom=3.0))
    model.probe.requires_grad_(False)
    before = model.probe.modes.clone()
    model.on_step_end(state)
    assert torch.equal(model.probe.modes, before)


def test_a_mask_that_takes_most_of_the_probe_is_said_and_one_that_leaves_nothing_refused(caplog):
    made(ProbeSupport(radius_angstrom=1.0))
    assert "% of the power from the probe as it is told: it is too small" in caplog.text
    with pytest.raises(DataError, match=r"too small, or the probe"):
        made(ProbeAperture(semiangle_mrad=0.01, edge_mrad=0.001))


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (ProbeSupport(radius_angstrom=4.0), None),
        (ProbeSupport(radius_angstrom=1.0), "% of the power from the probe"),
        (ProbeSupport(radius_angstrom=50.0), "covers the whole array"),
        (ProbeAperture(semiangle_mrad=28.0), None),
        (ProbeAperture(semiangle_mrad=15.0), "% of the power from the probe"),
        (LowPass(shortest_period_angstrom=1.0), None),
        (LowPass(shortest_period_angstrom=0.1), "next to no effect"),
        (Gaussian(sigma_angstrom=50.0), "more than half of the object"),
    ],
)
def test_the_look_at_the_data_doubts_what_takes_too_much_or_nothing(constraint, said, tmp_path):
    seen = list(constraint.inspect(resolve_text(small_recipe(), tmp_path).recipe, "all"))
    doubts = [each.message for each in seen if isinstance(each, Problem)]
    assert (len(doubts) == 0) == (said is None), doubts
    assert said is None or said in doubts[0]


def test_a_central_stop_larger_than_the_aperture_is_refused(tmp_path):
    text = small_recipe(more="[model.constraints.a]\nuse = 'probe_aperture'\nsemiangle_mrad = 20.0\ninner_mrad = 25.0")
    with pytest.raises(RecipeError, match="must be below semiangle_mrad = 20"):
        resolve_text(text, tmp_path)
