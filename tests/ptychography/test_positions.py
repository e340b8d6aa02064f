"""Positions: the motion of the whole scan, and what held-out patterns say of a reconstruction."""

from __future__ import annotations

from math import cos, radians, sin
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, Monitor, State
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.background import Background
from trainkit_ptychography.models.held_out_positions import fit_displacement
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.physics.geometry import distortion
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .finite_differences import check_gradients

SMALL = SimulatedDiffraction(scan_shape=(6, 5), detector_size=24)


def context() -> Context:
    return Context(0, torch.device("cpu"), Path())


def live(settings: SimulatedDiffraction = SMALL, dtype: torch.dtype = torch.float32, **changes: Any) -> LiveDiffraction:
    intensities, scan = settings.read()
    recording = checked(Recording(intensities, attrs.evolve(scan, **changes)))
    return LiveDiffraction(recording, context(), settings.batch_size, settings.validation_fraction, dtype)


def made(data: LiveDiffraction, **settings: Any) -> PtychographyModule:
    model = Ptychography(**{"probe": Aperture(), **settings}).build(data)
    assert isinstance(model, PtychographyModule)
    return model


def validating(model: PtychographyModule, data: LiveDiffraction) -> State:
    state = State(context(), 2, model, data, {}, Monitor())
    state.split = "val"
    return state


def with_the_true_object(data: LiveDiffraction, **settings: Any) -> PtychographyModule:
    model = made(data, **settings)
    truth = data.scan.truth
    assert truth is not None
    top, left = np.rint(model.motion.origin_2).astype(int) + 20
    with torch.no_grad():
        height, width = model.object.maps.shape[1:]
        model.object.maps[0] = torch.from_numpy(np.pad(truth.phase_KL, 20)[top:, left:][:height, :width])
    return model


# ---- group scan -----------------------------------------------------------------------------------------------------


def test_a_matrix_is_taken_apart_into_rotation_scales_and_shear():
    angle, rows, columns, shear = radians(7.0), 1.03, 0.98, 0.02
    turn = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
    found = distortion(turn @ np.array([[rows, shear], [0.0, columns]]))
    assert found == pytest.approx((angle, rows, columns, shear))
    # Towards the row axis (down): a point on the right goes down.
    assert (turn @ np.array([0.0, 1.0]))[0] > 0


def test_gradients_of_scan_are_those_of_finite_differences():
    data = live(attrs.evolve(SMALL, scan_shape=(2, 2), detector_size=8), torch.float64)
    model = made(data, object_margin=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.object.maps += 0.3 * torch.rand(model.object.maps.shape, generator=generator, dtype=torch.float64)
        model.dr += 0.1 * torch.rand(model.dr.shape, generator=generator, dtype=torch.float64)
    batch = {"index": torch.arange(4)}

    def patterns(scan: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {"scan": scan}, (batch,))["intensities"]

    at = 0.1 * torch.rand(2, 2, generator=generator, dtype=torch.float64)
    check_gradients(patterns, [at.requires_grad_()])


def test_scan_moves_all_points_as_dr_would_that_is_linear():
    data = live(SMALL, torch.float64)
    model, other = made(data, object_margin=8), made(data, object_margin=8)
    from_middle = data.scan.positions_N2 - data.scan.positions_N2.mean(0)
    matrix = np.array([[0.04, -0.03], [0.05, 0.02]])
    radius = np.hypot(*from_middle.T).max()
    with torch.no_grad():
        for each in (model, other):
            each.object.maps += torch.rand(each.object.maps.shape, generator=torch.Generator().manual_seed(0))
        model.scan.copy_(torch.from_numpy(matrix * radius))
        other.dr.copy_(torch.from_numpy(from_middle @ matrix.T))
    batch = {"index": torch.arange(30)}
    torch.testing.assert_close(model(batch)["intensities"], other(batch)["intensities"])
    np.testing.assert_allclose(model.positions(), other.positions())


def test_what_is_taken_out_of_dr_goes_to_scan_while_that_trains():
    data = live(attrs.evolve(SMALL, validation_fraction=0.0), torch.float64)
    linear = np.array([[0.02, 0.01], [-0.01, 0.03]])
    from_middle = data.scan.positions_N2 - data.scan.positions_N2.mean(0)
    for trains in (True, False):
        model = made(data, object_margin=8)
        model.scan.requires_grad_(trains)
        with torch.no_grad():
            model.dr.copy_(torch.from_numpy(from_middle @ linear.T))
        before = model.positions()
        model.on_epoch_end(State(context(), 2, model, data, {}, Monitor()))
        assert model.dr.abs().max() < 1e-9
        np.testing.assert_allclose(model.positions(), before if trains else data.scan.positions_N2, atol=1e-9)


RECIPE = """
trainkit = 1
[run]
name = "distorted"
epochs = 14
threads = 1
device = "cpu"
[data]
use = "ptychography.test_positions:Distorted"
scan_shape = [18, 18]
detector_size = 40
batch_size = 12
step_angstrom = 0.7
dose_per_square_angstrom = 1e6
position_error_angstrom = 0.0
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
object_margin = 6
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
[groups.object]
lr = 1e-2
[groups.dr]
lr = 3e-3
start_epoch = 2
[pictures]
every_epochs = 0
[checkpoint]
every_epochs = 100
"""
TRAINED = '[groups.scan]\nlr = 2e-2\nstart_epoch = 2\nscheduler = { use = "cosine" }\n'


class Distorted(SimulatedDiffraction):
    """A scan that is told to be 2 % smaller than it is, and turned back by 1°."""

    def read(self) -> Recording:
        """Simulate."""
        intensities, scan = super().read()
        assert scan.truth is not None
        middle = scan.positions_N2.mean(0)
        angle = radians(1.0)
        turned = 1.02 * np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
        told = (scan.truth.positions_N2 - middle) @ np.linalg.inv(turned).T + middle
        return Recording(intensities, attrs.evolve(scan, positions_N2=told))


@pytest.mark.slow
def test_a_scale_of_2_percent_and_a_turn_of_1_degree_are_found_when_scan_trains_and_left_when_not(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    found, untouched = (
        start(resolve_text(RECIPE + more, tmp_path), Console(quiet=True)).run.state for more in (TRAINED, "")
    )
    assert found.metrics["scan/scale"] == pytest.approx(1.02, abs=0.002)
    assert found.metrics["scan/rotation_deg"] == pytest.approx(1.0, abs=0.1)
    assert found.metrics["val/loss"] < untouched.metrics["val/loss"]
    model: Any = untouched.model
    assert not model.scan.any()
    data: Any = untouched.data
    trained = data.train_index.numpy()
    design = np.column_stack([data.scan.positions_N2[trained], np.ones(len(trained))])
    linear = np.linalg.lstsq(design, (model.positions() - data.scan.positions_N2)[trained], rcond=None)[0][:2]
    assert np.abs(linear).max() < 1e-5  # dr took nothing of it
    assert model.dr.abs().max() > 1e-3  # though it trained
    assert "scan/scale" not in untouched.metrics


# ---- held-out points ------------------------------------------------------------------------------------------------


def blobs(displacement_B2: torch.Tensor) -> torch.Tensor:
    """A model with a known answer: Gaussians that move, each twice as far along rows as it is told."""
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    down, right = displacement_B2[:, 0, None, None], displacement_B2[:, 1, None, None]
    return torch.exp(-((rows - 12 - 2 * down) ** 2 + (columns - 10 - right) ** 2) / 18)


@pytest.mark.parametrize("masked", [False, True])
def test_a_displacement_is_found_from_a_pattern_alone_also_with_a_bad_detector(masked):
    true = torch.tensor([[0.3, -0.2], [0.0, 0.0], [-0.1, 0.6]])
    measured, mask = blobs(true), None
    if masked:
        mask = torch.ones(24, 20, dtype=torch.bool)
        mask[8:12, 4:9] = False
        measured = torch.where(mask, measured, 40.0)
    found = fit_displacement(blobs, measured, mask, torch.zeros(3, 2), 6)
    torch.testing.assert_close(found, true, rtol=0, atol=1e-3)
    assert (
        not torch.allclose(fit_displacement(blobs, measured, None, torch.zeros(3, 2), 6), true, atol=1e-2) or not masked
    )


def test_a_pattern_that_tells_nothing_or_only_worse_leaves_its_point_where_it_was():
    start_B2 = torch.tensor([[0.1, 0.2], [0.3, -0.4]])
    flat = fit_displacement(lambda d: torch.ones(2, 24, 20) + 0.0 * d.sum(), torch.rand(2, 24, 20), None, start_B2, 3)
    assert torch.equal(flat, start_B2)
    there = blobs(start_B2)
    assert torch.equal(fit_displacement(blobs, there, None, start_B2, 3), start_B2)


def test_held_out_points_find_their_own_places_and_nothing_else_moves():
    settings = attrs.evolve(SMALL, scan_shape=(9, 9), validation_fraction=0.3, dose_per_square_angstrom=1e8)
    data = live(settings)
    model = with_the_true_object(data)
    truth, held_out = data.scan.truth, data.held_out_index.numpy()
    assert truth is not None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for epoch in range(3):
        state = validating(model, data)
        state.epoch = epoch
        model.on_validation_start(state)
    error = (model.positions() - truth.positions_N2)[held_out]
    start_error = (data.scan.positions_N2 - truth.positions_N2)[held_out]
    assert np.median(np.abs(error)) < 0.02 * np.median(np.abs(start_error))
    assert np.sqrt((error**2).mean()) < 0.2 * np.sqrt((start_error**2).mean())
    after = model.state_dict()
    after["dr"] = after["dr"].clone()
    after["dr"][data.held_out_index] = 0.0
    after["ordered_epoch"] = before["ordered_epoch"]
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"probe": Aperture(modes=3)},
        {"probe": Aperture(opr_modes=1)},
        {"detector_blur_pixels": 0.7, "background": Background(start_share=0.2), "pattern_intensities": True},
    ],
    ids=["one mode", "three modes", "a probe for each pattern", "a detector"],
)
def test_slopes_along_displacements_are_those_of_finite_differences(settings: dict[str, Any]) -> None:
    data = live(attrs.evolve(SMALL, scan_shape=(3, 2), detector_size=12), torch.float64)
    model = made(data, object_margin=4, **settings)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():  # those of the probe, of OPR and of the detector among them
            parameter.add_(0.1 * torch.rand(parameter.shape, generator=generator, dtype=torch.float64))
    index_B, near = torch.arange(6), 1e-5
    displacement_B2 = 0.3 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    found_BYX, slopes_2BYX = model._intensities_and_slopes(index_B, displacement_B2)
    with torch.no_grad():
        torch.testing.assert_close(found_BYX, model._intensities(index_B, displacement_B2))
        for slope_BYX, unit_2 in zip(slopes_2BYX, torch.eye(2, dtype=torch.float64), strict=True):
            after, before = (model._intensities(index_B, displacement_B2 + way * unit_2) for way in (near, -near))
            expected_BYX = (after - before) / (2 * near)
            assert expected_BYX.abs().max() > 1e-4
            torch.testing.assert_close(slope_BYX, expected_BYX, rtol=1e-6, atol=1e-9)


def test_held_out_points_stay_while_positions_do_not_train():
    data = live(attrs.evolve(SMALL, validation_fraction=0.3))
    model = with_the_true_object(data)
    model.dr.requires_grad_(False)
    model.on_validation_start(validating(model, data))
    assert not model.dr.any()


def test_held_out_patterns_do_not_follow_a_scan_that_drifts():
    """Where the trained points and the object have gone astray together, the held-out ones stay in the given frame."""
    data = live(attrs.evolve(SMALL, scan_shape=(9, 9), validation_fraction=0.3, dose_per_square_angstrom=1e8))
    assert data.scan.truth is not None
    shift = torch.tensor([0.4, -0.3])
    model = with_the_true_object(live(attrs.evolve(SMALL, scan_shape=(9, 9), validation_fraction=0.3)))
    drifted = with_the_true_object(data, project_affine=False)
    true_dr = torch.from_numpy(data.scan.truth.positions_N2 - data.scan.positions_N2).float()
    with torch.no_grad():
        # The object of the drifted model stands off by a shift, and so do the points that are trained on.
        spectrum = torch.fft.fft2(model.object.maps[0])
        rows, columns = (torch.fft.fftfreq(size)[:, None] for size in spectrum.shape)
        ramp = torch.exp(-2j * torch.pi * (rows * shift[0] + columns.T * shift[1]))
        drifted.object.maps[0] = torch.fft.ifft2(spectrum * ramp).real
        trained = data.train_index
        drifted.dr[trained] = true_dr[trained] + shift
    for _ in range(3):
        drifted.on_validation_start(validating(drifted, data))
    off = drifted.dr.detach()[data.held_out_index] - true_dr[data.held_out_index]
    # Fitted alone they would be off by the drift; in the given frame they are where they truly are.
    torch.testing.assert_close(off.mean(0), -true_dr[trained].mean(0), rtol=0, atol=0.1)
