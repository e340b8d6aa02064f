"""The curvature that scaled steps divide by, against second derivatives, and what it does for a reconstruction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, Exchange, PartError, State
from trainkit.console import Console
from trainkit.curvature import curvature_of
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.losses.amplitude import Amplitude
from trainkit_ptychography.losses.intensity import Intensity
from trainkit_ptychography.losses.poisson import Poisson
from trainkit_ptychography.models.probe_slope import ProbeSlope
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.models.seen_motion import SeenMotion
from trainkit_ptychography.physics.moving_probe import change_of_amplitudes, middle_of
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

START: Any = SimpleNamespace(epoch=0, metrics={}, groups={})
EVENT: Any = SimpleNamespace(epoch=0, step=0, context=SimpleNamespace(exchange=Exchange()))


def a_step(
    loss: Any,
    dose: float = 1e6,
    modes: int = 1,
    parts: int = 1,
    weight: float = 1.0,
    unmeasured: float = 0.0,
    dead_rows: slice = slice(0),
    starts_an_epoch: bool = False,
):
    """Return a model close to the truth, with the gradients of a step, and what the loss is as a function of it.

    Of each pattern, a share of the pixels, drawn anew, and some rows of the detector were not measured.
    """
    settings = SimulatedDiffraction(scan_shape=(6, 6), detector_size=32, dose_per_square_angstrom=dose)
    recording = settings.read()
    if unmeasured:
        patterns = np.array(recording.intensities_NYX)
        patterns[np.random.default_rng(3).random(patterns.shape) < unmeasured] = np.nan
        patterns[:, dead_rows] = np.nan
        recording = Recording(patterns, attrs.evolve(recording.scan, frame_masks=True))
    data = LiveDiffraction(checked(recording), Context(0, torch.device("cpu"), Path()), 36, 0.0)
    model = Ptychography(probe=Aperture(modes=modes)).build(data)
    assert isinstance(model, PtychographyModule)
    truth = data.scan.truth
    assert truth is not None
    top, left = np.rint(model.motion.origin_2).astype(int)
    height, width = model.motion.shape_HW
    with torch.no_grad():
        model.object.maps[0] = torch.from_numpy(truth.phase_KL[top : top + height, left : left + width])
        model.object.maps += 0.005 * torch.randn(model.object.maps.shape, generator=torch.Generator().manual_seed(1))
    function = loss.build(data)
    (whole,) = data.evaluate("train")

    def total() -> torch.Tensor:
        shares = [{key: value[part::parts] for key, value in whole.items()} for part in range(parts)]
        return sum(weight * function(model(part), part, model) / parts for part in shares)

    if starts_an_epoch:
        model.on_epoch_start(START)
    model.on_step_start(EVENT)
    total().backward()
    return model, total


def seen_share(total: Any, parameter: torch.nn.Parameter, told: torch.Tensor) -> float:
    """Return the second derivative along random steps, by differences of the gradient, as a share of what was told."""
    generator = torch.Generator().manual_seed(2)
    expected, found = 0.0, 0.0
    for _ in range(3):
        step = 3e-3 * torch.randn(parameter.shape, generator=generator)
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
            (slope,) = torch.autograd.grad(total(), parameter)
            with torch.no_grad():
                parameter -= sign * step
            slopes.append(slope)
        expected += float((told * step.square()).sum())
        found += float(((slopes[0] - slopes[1]) / 2 * step).sum())
    return found / expected


LOSSES = [(Amplitude(), 1.0), (Amplitude(), 7.0), (Poisson(), 1.0), (Poisson(), 1e-3), (Intensity(), 1.0)]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize(("loss", "weight"), LOSSES, ids=lambda each: str(each))
def test_the_curvature_bounds_the_losss_second_derivative_and_is_of_its_size(loss, weight, parts):
    model, total = a_step(loss, weight=weight, parts=parts)
    parameters = {"object": model.object.maps, "dr": model.dr, "scan": model.scan}
    told = {name: curvature_of(parameter) for name, parameter in parameters.items()}
    model.on_step_end(EVENT)
    along = {name: seen_share(total, each, told[name]) for name, each in parameters.items()}
    # A change of phase in the far field is not seen: about half of the bound is there. The loss of intensities curves
    # most where it is brightest, and that is what counts for its bound.
    assert (0.05 if isinstance(loss, Intensity) else 0.35) <= along["object"] <= 1.0
    assert 0.3 <= along["dr"] <= 2.0
    assert 0.3 <= along["scan"] <= 2.0


@pytest.mark.parametrize("modes", [1, 3])
def test_once_an_epoch_has_begun_the_curvature_along_each_position_is_known_twice_as_well(modes):
    found = []
    for starts_an_epoch in (True, False):
        model, total = a_step(Amplitude(), modes=modes, starts_an_epoch=starts_an_epoch)
        told_N2 = curvature_of(model.dr)
        model.on_step_end(EVENT)
        steps = 3e-3 * torch.eye(2)[:, None].expand(-1, len(model.dr), -1)
        slopes = []
        for sign in (1, -1):
            for step in steps:
                with torch.no_grad():
                    model.dr += sign * step
                slopes.append(torch.autograd.grad(total(), model.dr)[0])
                with torch.no_grad():
                    model.dr -= sign * step
        # Each position changes its own pattern alone, so all of them may move at once.
        true_N2 = torch.stack([(slopes[axis] - slopes[2 + axis])[:, axis] / 6e-3 for axis in (0, 1)], 1)
        strong = true_N2 > 0.3 * true_N2.median()
        found.append(float((told_N2 / true_N2)[strong].log().square().mean().sqrt()))
    measured, estimated = found
    assert measured < 0.3  # measured: 0.25; a quarter of a pixel to which the probe is not shifted is most of it
    assert measured < 0.65 * estimated


def test_the_change_of_amplitudes_is_that_of_a_probe_that_moves_in_numpy():
    generator = np.random.default_rng(0)
    spectrum_MYX = np.zeros((2, 24, 24), complex)  # a probe that fills its patch: nothing of it is left out
    spectrum_MYX[:, :5, :7] = generator.normal(size=(2, 5, 7)) + 1j * generator.normal(size=(2, 5, 7))
    object_HW = np.exp(1j * generator.normal(size=(40, 40)))
    corner_N2 = np.array([[0, 3], [16, 9], [5, 16]])

    def amplitudes(shift_2: tuple[float, float], corner_2: np.ndarray) -> np.ndarray:
        along = [np.exp(-2j * np.pi * np.fft.fftfreq(24) * shift) for shift in shift_2]
        wave_MYX = np.fft.ifft2(spectrum_MYX * np.outer(*along))
        patch_YX = object_HW[corner_2[0] : corner_2[0] + 24, corner_2[1] : corner_2[1] + 24]
        return np.sqrt((np.abs(np.fft.fft2(wave_MYX * patch_YX, norm="ortho")) ** 2).sum(0))

    expected_N2 = [
        [
            (((amplitudes(step, corner_2) - amplitudes(back, corner_2)) / 2e-4) ** 2).sum()
            for step, back in (((1e-4, 0), (-1e-4, 0)), ((0, 1e-4), (0, -1e-4)))
        ]
        for corner_2 in corner_N2
    ]
    patches_NYX = np.stack([object_HW[top : top + 24, left : left + 24] for top, left in corner_N2])
    middle = middle_of(torch.from_numpy(np.fft.ifft2(spectrum_MYX)))
    found_N2 = change_of_amplitudes(middle, torch.from_numpy(patches_NYX))
    assert found_N2.numpy() == pytest.approx(np.array(expected_N2), rel=1e-4)


def test_what_positions_see_is_measured_when_they_begin_and_then_ever_more_seldom():
    model, _ = a_step(Amplitude())
    seen = SeenMotion(len(model.dr), model.dr)
    assert seen.is_due(4)
    seen.share_N2 += 0.1
    seen.load_state_dict(seen.state_dict())
    assert [epoch for epoch in range(20) if seen.is_due(epoch)] == [0, 1, 3, 7, 15]
    seen.load_state_dict({})  # of a version that did not keep it
    assert bool((seen.share_N2 == 0.5).all())


def test_where_there_is_no_object_yet_half_of_a_change_counts_as_seen():
    model, _ = a_step(Amplitude())
    with torch.no_grad():
        model.object.maps.zero_()
    model.on_epoch_start(START)
    assert model.seen.share_N2.numpy() == pytest.approx(0.5, abs=0.01)


def test_the_probes_curvature_bounds_the_second_derivative_for_one_mode_and_several():
    for modes in (1, 3):
        model, total = a_step(Amplitude(), modes=modes)
        told = curvature_of(model.probe.modes)
        model.on_step_end(EVENT)
        assert 0.2 <= seen_share(total, model.probe.modes, told) <= 1.0


@pytest.mark.parametrize("dead_rows", [slice(0), slice(0, None, 2), slice(8, 24)])
def test_pixels_that_single_patterns_lack_do_not_count_as_a_misfit(dead_rows):
    model, _ = a_step(Amplitude(), unmeasured=0.3, dead_rows=dead_rows)
    # The amplitude loss curves by 2 along each amplitude, and is a mean over 36 patterns.
    assert float(model._curvature.along_amplitude()) == pytest.approx(2 / 36, rel=0.02)


def test_the_curvature_is_known_only_between_backward_pass_and_update():
    model, _ = a_step(Amplitude())
    curvature_of(model.object.maps)
    model.on_step_end(EVENT)
    with pytest.raises(PartError, match="only between backward pass and update"):
        curvature_of(model.object.maps)


def test_a_fit_without_any_misfit_makes_no_step():
    model, _ = a_step(Amplitude())
    part = model._curvature._parts[0]
    part.amplitudes_BYX = part.intensities_BYX.detach().sqrt()
    part.gradient_BYX = torch.zeros_like(part.intensities_BYX)
    assert float(curvature_of(model.object.maps).max()) == 0.0


RECIPE = """
trainkit = 1
run = { name = "scaled", epochs = 1, device = "cpu", threads = 1 }
checkpoint.every_epochs = 100
pictures.every_epochs = 0
losses.data.use = "poisson"
optimizer.use = "scaled_steps"
scheduler.use = "none"
hooks.truth.use = "ptychography_truth"

[data]
use = "diffraction_simulated"
scan_shape = [14, 14]
detector_size = 40
position_error_angstrom = 0.0
batch_size = 16
validation_fraction = 0.05

[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
"""


def reconstructed(folder: Path, *sets: str) -> State:
    (folder / "recipe.toml").write_text(RECIPE)
    return start(resolve(folder / "recipe.toml", (f"run.dir={folder}", *sets)), Console(quiet=True)).run.state


@pytest.mark.parametrize("energy_kev", [60.0, 200.0])
@pytest.mark.parametrize("loss", ["amplitude", "poisson"])
def test_one_epoch_shows_a_specimen_whatever_the_energy_and_the_loss(tmp_path, energy_kev, loss):
    state = reconstructed(tmp_path, f"data.energy_kev={energy_kev}", f"losses.data.use={loss}")
    assert state.metrics["truth/phase_pearson"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("energy_kev", "defocus_angstrom", "told_angstrom", "dose"), [(60.0, -80.0, -60.0, 1e4), (200.0, 100.0, 130.0, 1e6)]
)
def test_one_set_of_settings_repairs_a_defocus_that_is_told_wrong_whatever_the_specimen(
    tmp_path, energy_kev, defocus_angstrom, told_angstrom, dose
):
    told = f"model.probe.defocus_angstrom={told_angstrom}"
    state = reconstructed(
        tmp_path,
        *(f"data.energy_kev={energy_kev}", f"data.defocus_angstrom={defocus_angstrom}"),
        *(f"data.dose_per_square_angstrom={dose}", "data.position_error_angstrom=0.1", "run.epochs=12", told),
        *(
            'groups.probe={ start_epoch = 1, optimizer = { use = "scaled_steps", momentum = 0.9 } }',
            "scheduler.use=cosine",
        ),
        "groups.dr.start_epoch=1",
    )
    assert state.metrics["truth/phase_pearson"] > 0.95
    assert state.metrics["truth/position_rmse_angstrom"] < 0.8 * state.metrics["truth/position_rmse_start_angstrom"]


def test_a_probe_that_is_the_same_everywhere_makes_no_step_of_positions():
    patch_BYX = torch.polar(torch.ones(3, 16, 16), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)))
    probe_MYX = torch.ones(1, 16, 16, dtype=torch.complex64)
    slope = ProbeSlope(probe_MYX)
    slope.measure(probe_MYX)
    assert not slope.change_of_exit_wave(patch_BYX).any()  # nor is it NaN
