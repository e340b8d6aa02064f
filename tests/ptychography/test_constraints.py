"""Constraints: when they are imposed, and what limits do to an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainkit import Context, Monitor, RecipeError, State
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.constraints.limits import Limits
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.hash_encoding import HashEncoding
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

CONTEXT = Context(0, torch.device("cpu"), Path())
DATA = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24)


def made(limits: Limits, **settings: Any) -> tuple[PtychographyModule, State]:
    data = DATA.build(CONTEXT)
    model = Ptychography(probe=Aperture(), constraints={"limits": limits}, **settings).build(data)
    assert isinstance(model, PtychographyModule)
    state = State(CONTEXT, 4, model, data, {}, Monitor())
    state.step = 1
    with torch.no_grad():
        for parameter in model.object.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model, state


def maps(model: PtychographyModule) -> tuple[np.ndarray, np.ndarray]:
    found = model.reconstruction()
    return found.phase_SHW, found.amplitude_SHW


def test_pixels_beyond_a_limit_are_set_to_it_and_no_other_pixel_changes():
    model, state = made(Limits(min_phase_rad=-0.5, max_phase_rad=1.0, min_amplitude=0.3, max_amplitude=1.0))
    phase_SHW, amplitude_SHW = maps(model)
    model.on_step_end(state)
    after = maps(model)
    assert np.array_equal(after[0], np.clip(phase_SHW, -0.5, 1.0))
    np.testing.assert_allclose(after[1], np.clip(amplitude_SHW, 0.3, 1.0), rtol=1e-6)
    inside = (amplitude_SHW > 0.3001) & (amplitude_SHW < 0.9999)
    assert inside.any()
    assert np.array_equal(after[1][inside], amplitude_SHW[inside])


@pytest.mark.parametrize(
    ("limits", "changed"), [(Limits(max_phase_rad=0.1), (True, False)), (Limits(max_amplitude=0.9), (False, True))]
)
def test_what_has_no_limit_stays(limits, changed):
    model, state = made(limits)
    before = maps(model)
    model.on_step_end(state)
    assert tuple(not np.array_equal(*pair) for pair in zip(maps(model), before, strict=True)) == changed


def test_an_object_that_does_not_train_or_does_not_absorb_is_no_trouble():
    model, state = made(Limits(max_phase_rad=0.1, max_amplitude=0.9))
    model.object.requires_grad_(False)
    before = maps(model)
    model.on_step_end(state)
    assert np.array_equal(maps(model)[0], before[0])
    model, state = made(Limits(max_phase_rad=0.1, max_amplitude=0.9), object=Pixels(kind="phase_only"))
    model.on_step_end(state)
    assert maps(model)[0].max() == np.float32(0.1)


def test_a_constraint_is_imposed_in_its_epochs_and_after_every_so_many_steps():
    for epoch, step, imposed in ((0, 4, False), (1, 5, False), (1, 6, True), (2, 8, True), (3, 10, False)):
        model, state = made(Limits(max_phase_rad=0.1, start_epoch=1, stop_epoch=3, every_steps=2))
        state.epoch, state.step = epoch, step
        model.on_step_end(state)
        assert (maps(model)[0].max() <= np.float32(0.1)) == imposed, (epoch, step)


RECIPE = """
trainkit = 1
[run]
name = "limited"
epochs = 3
threads = 1
device = "cpu"
[data]
use = "diffraction_simulated"
scan_shape = [5, 5]
detector_size = 24
dose_per_square_angstrom = 1e3
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
lr = 3e-2
[pictures]
every_epochs = 0
"""
LIMITS = "[model.constraints.vacuum]\nuse = 'limits'\nmax_amplitude = 1.0\nmin_phase_rad = 0.0\n"


def test_a_recipe_names_its_constraints_and_the_result_keeps_to_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without, limited = (
        start(resolve_text(RECIPE + more, tmp_path), Console(quiet=True)).run.state.model for more in ("", LIMITS)
    )
    assert maps(without)[1].max() > 1.01  # so there is something to keep to
    assert maps(without)[0].min() < -0.01
    assert maps(limited)[1].max() <= 1.0
    assert maps(limited)[0].min() >= 0.0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[model.constraints.a]\nuse = 'limits'\n", "at least one limit"),
        (
            "[model.constraints.a]\nuse = 'limits'\nmin_phase_rad = 1.0\nmax_phase_rad = 0.5\n",
            "must be above min_phase",
        ),
        (LIMITS + "start_epoch = 2\nstop_epoch = 1\n", "must come after the start"),
        (LIMITS + "[model.object]\nuse = 'hash_encoding'\n", "needs an object made of pixels"),
        (LIMITS + "[model.object]\nuse = 'pixels'\nkind = 'phase_only'\n", "has no effect"),
        ("[model.constraints.a]\nuse = 'limit'\n", 'did you mean "limits"'),
    ],
)
def test_what_makes_no_sense_is_found_before_anything_is_built(more, said, tmp_path):
    with pytest.raises(RecipeError, match=said):
        resolve_text(RECIPE + more, tmp_path)


def test_the_plan_says_when_a_constraint_starts_and_stops():
    constraints = {"early": Limits(max_amplitude=1.0, stop_epoch=2), "late": Limits(max_amplitude=1.0, start_epoch=3)}
    said = list(Ptychography(probe=Aperture(), constraints=constraints).timeline(5))
    assert said == [(2, "constraint early stops"), (3, "constraint late starts")]


def test_limits_of_an_object_without_pixels_are_refused():
    with pytest.raises(RecipeError, match="HashObject is none"):
        made(Limits(max_amplitude=1.0), object=HashEncoding(levels=4))
