"""What the detector adds: a background, light that varies from pattern to pattern, and a distance that is not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, Problem, RecipeError
from trainkit.console import Console
from trainkit.engine.resume import resume
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.background import Background
from trainkit_ptychography.models.detector_live import Detector, between_nodes
from trainkit_ptychography.models.output import show
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.preflight.background import inspect_background, inspect_intensities
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.mean_pattern import MeanPattern
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_near_field import SimulatedNearField

from .small_recipe import small_recipe

CONTEXT = Context(0, torch.device("cpu"), Path())
SETTINGS = SimulatedDiffraction(
    scan_shape=(6, 6), detector_size=32, position_error_angstrom=0.0, dose_per_square_angstrom=1e7
)
GENERATOR = np.random.default_rng(2)
FACTORS_N = GENERATOR.uniform(0.7, 1.3, 36)
ROWS_Y = np.fft.ifftshift(np.linspace(0.5, 1.5, 32))
ADDED_YX = 0.2 * np.outer(ROWS_Y, np.ones(32)) / 32**2  # of the light of a mean pattern, 0.2 in all


class Spoiled(SimulatedDiffraction):
    """A scan whose beam's current varies, with light on the detector that no wave explains."""

    def read(self) -> Recording:
        intensities_NYX, scan = super().read()
        clean_NYX = np.asarray(intensities_NYX, np.float64)
        spoiled_NYX = FACTORS_N[:, None, None] * clean_NYX + clean_NYX.sum((1, 2)).mean() * ADDED_YX
        return Recording(spoiled_NYX.astype(np.float32), scan)


def live(settings: SimulatedDiffraction = SETTINGS, held_out: float = 0.0) -> LiveDiffraction:
    return LiveDiffraction(checked(settings.read()), CONTEXT, 36, held_out, dtype=torch.float64)


def made(data: LiveDiffraction, **settings: Any) -> PtychographyModule:
    model = Ptychography(**({"probe": Aperture()} | settings)).build(data)
    assert isinstance(model, PtychographyModule)
    phase_KL = torch.from_numpy(data.scan.truth.phase_KL)
    with torch.no_grad():
        model.object.maps[0, : phase_KL.shape[0], : phase_KL.shape[1]] = phase_KL
    return model


def test_patterns_are_the_light_times_their_factor_and_the_background_and_totals_stay():
    data = live()
    plain, model = made(data), made(data, background=Background(spacing_pixels=1.0), pattern_intensities=True)
    added_YX = torch.from_numpy(GENERATOR.uniform(0, 4e-4, (32, 32)))
    with torch.no_grad():
        centred_YX = torch.fft.fftshift(added_YX) * 32**2  # of nodes in the order of the rows
        model.detector.background.copy_(centred_YX.sqrt())
        model.detector.pattern_intensities.copy_(torch.from_numpy(FACTORS_N))
        index_B = torch.tensor([3, 0, 17])
        clean_BYX = plain({"index": index_B})["intensities"]
        found_BYX = model({"index": index_B})["intensities"]
    factor_B = torch.from_numpy(FACTORS_N)[index_B]
    expected_BYX = factor_B[:, None, None] * (1 - added_YX.sum()) * clean_BYX + added_YX
    torch.testing.assert_close(found_BYX, expected_BYX, rtol=1e-12, atol=1e-18)


def test_gradients_of_what_the_detector_adds_are_those_of_finite_differences():
    data = live()
    settings = {"background": Background(spacing_pixels=5.0, start_share=0.1), "pattern_intensities": True}
    model = made(data, **settings, detector_blur_pixels=0.7)
    (batch,) = data.some(torch.arange(5, 30))

    def loss() -> torch.Tensor:
        return (model(batch)["intensities"].sqrt() * batch["amplitudes"]).sum()

    loss().backward()
    for parameter in (model.detector.background, model.detector.pattern_intensities):
        direction = torch.from_numpy(GENERATOR.normal(size=parameter.shape))
        differences = []
        with torch.no_grad():
            for change in (1e-5, -2e-5, 1e-5):
                parameter += change * direction
                differences.append(float(loss()))
        expected = (differences[0] - differences[1]) / 2e-5
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("spacing", [1.0, 3.0, 7.5, 100.0])
def test_nodes_make_a_constant_of_a_constant_and_a_line_of_a_line(spacing):
    weights_YV = between_nodes(20, spacing)
    rows_Y, num = np.fft.ifftshift(np.arange(20.0)), weights_YV.shape[1]
    np.testing.assert_allclose(weights_YV.sum(1), 1.0, rtol=1e-12)
    nodes_V = 9.5 + spacing * (np.arange(num) - 0.5 * (num - 1))
    np.testing.assert_allclose(weights_YV @ torch.from_numpy(nodes_V), rows_Y, atol=1e-10)
    assert num <= 20 / spacing + 4


def test_a_background_and_the_light_of_each_pattern_are_found():
    data = live(Spoiled(**attrs.asdict(SETTINGS, recurse=False)))
    model = made(data, background=Background(spacing_pixels=8.0), pattern_intensities=True)
    (batch,) = data.some(torch.arange(36))
    parameters = [model.detector.background, model.detector.pattern_intensities]
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        (model(batch)["intensities"].sqrt() - batch["amplitudes"]).square().sum().backward()
        optimizer.step()
    model.detector.put_in_order()
    of_light = 1 / (FACTORS_N.mean() + ADDED_YX.sum())
    found_YX = model.detector.added().detach().numpy()
    assert np.abs(found_YX - of_light * ADDED_YX).max() < 0.05 * of_light * ADDED_YX.max()
    found_N = model.detector.pattern_intensities.detach().numpy()
    np.testing.assert_allclose(found_N, FACTORS_N / FACTORS_N.mean(), rtol=0.02)


def test_the_light_of_held_out_patterns_is_fitted_to_their_totals_and_none_is_trained_on():
    data = live(Spoiled(**attrs.asdict(SETTINGS, recurse=False)), held_out=0.2)
    model = made(data, background=Background(start_share=0.17), pattern_intensities=True)
    before = model.detector.pattern_intensities.detach().clone()
    model._fit_held_out_intensities()
    found = model.detector.pattern_intensities.detach()
    assert torch.equal(found[data.train_index], before[data.train_index])
    expected = torch.from_numpy(FACTORS_N / FACTORS_N.mean())[data.held_out_index]
    torch.testing.assert_close(found[data.held_out_index], expected, rtol=0.03, atol=0.0)


def test_the_mean_light_of_each_scan_stays():
    data = live(attrs.evolve(SETTINGS, further_defoci_angstrom=(90.0,)), held_out=0.2)
    detector = Detector(data, intensities_vary=True)
    with torch.no_grad():
        detector.pattern_intensities.copy_(torch.linspace(-0.1, 3.0, 72))
    detector.put_in_order()
    factors = detector.pattern_intensities.detach()
    for scan in (0, 1):
        trained = data.train_index[torch.from_numpy(data.scan.scan_N)[data.train_index] == scan]
        assert float(factors[trained].mean()) == pytest.approx(1.0, abs=1e-12)
    assert float(factors.min()) > 0


@pytest.mark.slow  # 150 steps of a near field
def test_a_distance_that_was_told_wrongly_is_found_where_the_specimen_is_known():
    settings = SimulatedNearField(
        num_points=16, detector_size=48, margin_pixels=16, range_pixels=40.0, position_error_pixels=0.0
    )
    told = attrs.evolve(settings.detector_propagation, effective_distance_mm=1.08 * 200.0)  # 1 m, 5 times
    intensities_NYX, scan = settings.read()
    recording = Recording(intensities_NYX, attrs.evolve(scan, detector_propagation=told))
    data = LiveDiffraction(checked(recording), CONTEXT, 16, 0.0)
    model = Ptychography(probe=MeanPattern(), trained_distance=True).build(data)
    first_2 = model.motion.origin_2.round().astype(int)
    rows, columns = (slice(first, first + size) for first, size in zip(first_2, model.motion.shape_HW, strict=True))
    phase_HW = torch.from_numpy(scan.truth.phase_KL[rows, columns])
    with torch.no_grad():
        model.object.maps.copy_(torch.stack((phase_HW, -0.05 * phase_HW)))  # as it is simulated
    groups = [{"params": [model.probe.modes], "lr": 0.02}, {"params": [model.detector.distance], "lr": 0.2}]
    optimizer = torch.optim.Adam(groups)
    (batch,) = data.some(torch.arange(16))
    for _ in range(150):
        optimizer.zero_grad()
        off_BYX = (model(batch)["intensities"] + 1e-9).sqrt() - batch["amplitudes"]
        (off_BYX * data.mask_YX).square().sum().backward()
        optimizer.step()
    assert float(model.detector.distance.detach()) == pytest.approx(100 / 1.08 - 100, abs=1.5)


# ---- in a run -------------------------------------------------------------------------------------------------------

RECIPE = """
trainkit = 1
run = { name = "detector", epochs = 3, device = "cpu" }
losses.data = { use = "amplitude" }
optimizer = { use = "adam" }
groups.probe = { start_epoch = 0, lr = 1e-3 }
groups.dr = { start_epoch = 1, lr = 1e-2 }
groups.background = { start_epoch = 0, lr = 1e-2 }
groups.pattern_intensities = { start_epoch = 1, lr = 1e-3 }
groups.distance = { start_epoch = 1, lr = 0.1 }
[model]
use = "ptychography"
probe = { use = "mean_pattern" }
background = {}
pattern_intensities = true
trained_distance = true
[data]
use = "diffraction_simulated_near_field"
num_points = 20
detector_size = 24
batch_size = 8
validation_fraction = 0.2
"""


@pytest.mark.slow  # two runs of three epochs, with pictures
def test_a_run_with_all_of_it_resumes_to_the_bit_and_leaves_files_and_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = start(resolve_text(RECIPE, tmp_path), Console(quiet=True)).run
    (folder,) = (tmp_path / "runs" / "detector").iterdir()
    again = resume(folder, Console(quiet=True), epoch=2).run
    parameters = dict(run.state.model.state_dict())
    for name, values in again.state.model.state_dict().items():
        assert torch.equal(values, parameters[name]), name
    assert again.state.metrics["val/loss"] == run.state.metrics["val/loss"]
    metrics, detector = run.state.metrics, run.state.model.detector
    with h5py.File(run.state.folder / "result.h5") as file:
        share = float(file["background"][8:-8, 8:-8].sum()) / run.state.data.mean_counts
        assert share == pytest.approx(metrics["detector/background_share"], rel=1e-4)
        np.testing.assert_array_equal(file["pattern_intensities"], detector.pattern_intensities.detach())
        assert file.attrs["distance_change_percent"] == metrics["detector/distance_change_percent"] != 0
    pictures = []
    state = run.state
    monkeypatch.setattr(type(state), "picture", lambda self, name, image, rank: pictures.append((name, image.shape[1])))
    show(state.model.reconstruction(), state.data, state, state.model)
    assert {("background", 1440), ("pattern_intensities", 1440), ("patterns", 1440)} <= {*pictures}


def test_what_never_trains_is_doubted_and_a_distance_of_the_far_field_is_refused(tmp_path):
    asked = "pattern_intensities = true\n[model.background]\nspacing_pixels = 8.0"
    groups = "[groups.background]\nstart_epoch = 0\n[groups.pattern_intensities]\nstart_epoch = 0\n"
    for more, keys in (("", ["background", "pattern_intensities"]), (groups, [])):
        recipe = resolve_text(small_recipe(asked, more), tmp_path).recipe
        assert [each.key for each in recipe.model.problems(recipe) if isinstance(each, Problem)] == keys
    with pytest.raises(RecipeError, match="in the far field, another distance is another size"):
        resolve_text(small_recipe("trained_distance = true", "[groups.distance]\nstart_epoch = 0"), tmp_path)
    with pytest.raises(RecipeError, match="is for the near field"):
        Ptychography(probe=Aperture(), trained_distance=True).build(live())
    assert not {"background", "pattern_intensities", "distance"} & set(Ptychography(probe=Aperture()).groups())


def test_check_says_how_much_background_there_can_be_and_by_how_much_the_light_varies():
    spoiled = Spoiled(**attrs.asdict(SETTINGS, recurse=False))
    assert [type(each) for each in inspect_background(spoiled, 1e-4)] == [str]
    in_the_dark = attrs.evolve(
        SETTINGS, dose_per_square_angstrom=1e3
    )  # few counts: most pixels are dark in some pattern
    (line, doubt) = inspect_background(in_the_dark, 0.4)
    assert doubt.key == "background.start_share"
    assert float(line.split("leave room for ")[1].split(" %")[0]) < 20
    (line,) = inspect_intensities(spoiled)
    varies = float(line.split("vary by ")[1].split(" %")[0])
    assert varies == pytest.approx(100 * FACTORS_N.std() / (FACTORS_N.mean() + 0.2), rel=0.05)
