"""The model of several slices: what it trains, keeps, shows and doubts; and constraints along the beam."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from trainkit import Context, DataError, Monitor, Problem, State
from trainkit.console import Console
from trainkit.curvature import curvature_of
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.constraints.depth_centre import DepthCentre
from trainkit_ptychography.constraints.depth_centre_live import moved
from trainkit_ptychography.constraints.kind import Constraint
from trainkit_ptychography.constraints.missing_wedge import MissingWedge
from trainkit_ptychography.constraints.slice_coupling import SliceCoupling
from trainkit_ptychography.losses.amplitude import Amplitude
from trainkit_ptychography.losses.l1 import L1
from trainkit_ptychography.models.output import write_files
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.physics.quality import rebinned
from trainkit_ptychography.preflight.inspection import inspect_geometry
from trainkit_ptychography.preflight.thick import inspect_slices
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.from_file import ProbeFromFile
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

pytestmark = pytest.mark.geometry_search

CONTEXT = Context(0, torch.device("cpu"), Path())
THICK = SimulatedDiffraction(
    scan_shape=(4, 5), detector_size=32, pixel_size_angstrom=0.3, position_error_angstrom=0.0, slices=4
)
RECIPE = """
trainkit = 1
run = { name = "thick", epochs = 2, device = "cpu" }
model = { use = "ptychography", slices = 3, thickness_angstrom = 100.0, probe = { use = "aperture" } }
losses.data = { use = "amplitude" }
optimizer = { use = "adam" }
groups.thickness = { start_epoch = 0, lr = 0.5 }
groups.tilt = { start_epoch = 0, lr = 0.1 }
groups.point_tilts = { start_epoch = 1, lr = 0.1 }
groups.dr = { start_epoch = 1, lr = 1e-2 }
hooks.truth = { use = "ptychography_truth" }
[data]
use = "diffraction_simulated"
scan_shape = [5, 5]
detector_size = 24
slices = 3
batch_size = 8
validation_fraction = 0.2
"""


class Flat(Pixels):
    """An object of another package that can have one slice only."""

    takes_slices = False


class Unknown(SimulatedDiffraction):
    """A scan that tells no optics, as that of most files."""

    def read(self) -> Recording:
        intensities, scan = super().read()
        return Recording(intensities, attrs.evolve(scan, semiangle_mrad=None, defocus_angstrom=None))


def live(settings: SimulatedDiffraction = THICK, dtype: torch.dtype = torch.float32, **changes: Any) -> LiveDiffraction:
    intensities, scan = settings.read()
    recording = checked(Recording(intensities, attrs.evolve(scan, **changes)))
    return LiveDiffraction(recording, CONTEXT, settings.batch_size, 0.0, dtype)


def made(data: LiveDiffraction, slices: int = 4, **settings: Any) -> PtychographyModule:
    named = {"probe": Aperture(), "thickness_angstrom": 100.0, **settings}
    model = Ptychography(slices=slices, **named).build(data)
    assert isinstance(model, PtychographyModule)
    return model


def give_truth(model: PtychographyModule, data: LiveDiffraction) -> None:
    truth = data.scan.truth
    assert truth is not None
    assert truth.slices_SKL is not None
    height, width = model.motion.shape_HW
    top, left = np.rint(model.motion.origin_2).astype(int)
    padded_SKL = np.pad(truth.slices_SKL, ((0, 0), (20, 20), (20, 20)), mode="edge")
    with torch.no_grad():
        part = padded_SKL[:, 20 + top : 20 + top + height, 20 + left : 20 + left + width]
        model.object.maps[0] = torch.from_numpy(part)


def misfit(model: PtychographyModule, data: LiveDiffraction) -> float:
    """Return the mean of (√I − √I_measured)² over the scan, summed over the detector."""
    with torch.no_grad():
        batches = list(data.evaluate("train"))
        terms = [(model(b)["intensities"].sqrt() - b["amplitudes"]).square().sum((1, 2)) for b in batches]
    return float(torch.cat(terms).mean())


# ---- patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waves", ["auto", "recomputed", "stored"])
def test_the_true_object_makes_the_patterns_of_a_simulation_in_numpy(waves):
    data = live(attrs.evolve(THICK, dose_per_square_angstrom=1e9))
    model = made(data, waves=waves)
    give_truth(model, data)
    right = misfit(model, data)
    assert right < 1e-4
    with torch.no_grad():
        model.object.maps.copy_(model.object.maps.flip(1))
    assert misfit(model, data) > 30 * right  # upside down
    give_truth(model, data)
    with torch.no_grad():
        model.propagation.thickness.mul_(1.5)
    assert misfit(model, data) > 10 * right


def test_gradients_of_all_parameters_are_those_of_finite_differences():
    small = SimulatedDiffraction(scan_shape=(2, 2), detector_size=16, semiangle_mrad=20.0, slices=3)
    data = live(small, torch.float64)
    model = made(data, slices=3, object_margin=1, tilt_mrad=(3.0, -2.0))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (model.object.maps, model.propagation.point_tilts):
            parameter += 0.3 * torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    batch = next(iter(data.evaluate("train")))
    weight = torch.rand(batch["amplitudes"].shape, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return (weight * model(batch)["intensities"]).sum()

    loss().backward()
    parameters = dict(model.named_parameters())
    assert {"propagation.thickness", "propagation.tilt", "propagation.point_tilts"} <= set(parameters)
    for parameter in parameters.values():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        differences = []
        with torch.no_grad():
            for step in (1e-5, -2e-5, 1e-5):
                parameter += step * direction
                differences.append(float(loss()))
        assert parameter.grad is not None
        expected = (differences[0] - differences[1]) / 2e-5
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_tilted_beam_moves_towards_larger_rows_and_columns_with_depth():
    """Atoms in the last slice of two are met as if they lay at smaller rows and columns by the tangent."""
    data = live()
    tilted = made(data, slices=2, tilt_mrad=(6.0, -12.0))  # 50 Å · 6 mrad are 1 pixel of 0.3 Å; columns −2
    image = torch.rand(tilted.object.maps.shape[2:], generator=torch.Generator().manual_seed(0))

    def patterns(model: PtychographyModule, rolled: tuple[int, int]) -> Tensor:
        with torch.no_grad():
            model.object.maps[0, 1] = image.roll(rolled, (0, 1))
            return model({"index": torch.arange(20)})["intensities"]

    found = patterns(tilted, (0, 0))
    right, wrong = ((found - patterns(made(data, slices=2), rolled)).abs().max() for rolled in ((-1, 2), (1, -2)))
    assert right < 0.1 * wrong  # what is left is where the wave passes the edge of the patch


def test_the_kernel_follows_thickness_and_tilts_however_they_are_changed():
    data = live()
    model = made(data)
    propagation, index_B = model.propagation, torch.tensor([3, 5])
    first = propagation.kernel(index_B).detach()
    propagation.point_tilts.requires_grad_(False)
    model(next(iter(data.evaluate("train"))))["intensities"].max().backward()
    torch.optim.Adam([propagation.thickness], lr=5.0, fused=True).step()  # does not raise the tensor's version
    propagation.requires_grad_(False)
    assert not torch.equal(propagation.kernel(index_B), first)
    tilted = propagation.state_dict()
    tilted["point_tilts"] = tilted["point_tilts"].index_fill(0, torch.tensor([5]), 2.0)
    propagation.load_state_dict(tilted)
    of_points = propagation.kernel(index_B)
    torch.testing.assert_close(of_points[0], propagation.kernel(index_B[:1])[0])
    assert not torch.allclose(of_points[0], of_points[1])


# ---- training -------------------------------------------------------------------------------------------------------


def test_the_curvature_of_slices_bounds_a_step_of_all_of_them():
    """A Newton step of all slices at once must not raise the loss."""
    data = live(attrs.evolve(THICK, dose_per_square_angstrom=1e8))
    model = made(data, object=Pixels(kind="phase_only"))
    model.on_step_start(State(CONTEXT, 1, model, data, {}, Monitor()))
    batch = next(iter(data.evaluate("train")))
    loss = Amplitude().build(data)
    before = loss(model(batch), batch, model)
    before.backward()
    before = before.detach()
    curvature = curvature_of(model.object.maps)
    assert curvature.shape == model.object.maps.shape[1:]
    with torch.no_grad():
        model.object.maps -= model.object.maps.grad / (curvature + 0.1 * curvature.max())
        after = loss(model(batch), batch, model)
    assert 0.1 * float(before) < float(after) < 0.9 * float(before)


@pytest.mark.slow
def test_thickness_and_tilt_train_from_their_epochs_and_a_run_leaves_slices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = start(resolve_text(RECIPE, tmp_path), Console(quiet=True)).run
    model = run.state.model.requires_grad_(False)
    assert float(model.propagation.thickness) != 100.0
    assert model.propagation.point_tilts.any()
    assert run.state.metrics["specimen/thickness_angstrom"] == float(model.propagation.thickness)
    assert -1 <= run.state.metrics["truth/depth_pearson"] <= 1
    with h5py.File(run.state.folder / "result.h5") as file:
        slices_SHW = file["object_slices"][()]
        assert slices_SHW.shape == (3, *model.motion.shape_HW)
        np.testing.assert_allclose(np.prod(slices_SHW, axis=0), file["object"][()], atol=1e-5)
        assert file.attrs["slice_spacing_angstrom"] == pytest.approx(float(model.propagation.thickness) / 3)
        assert file["tilt"].shape == (25, 2)


def test_a_thickness_that_is_trained_below_zero_is_an_error():
    model = made(live())
    with torch.no_grad():
        model.propagation.thickness.fill_(-1.0)
    with pytest.raises(DataError, match="lower the learning rate of group thickness"):
        model.propagation.check()


# ---- constraints ----------------------------------------------------------------------------------------------------


def imposed(constraint: Constraint, phase_SHW: np.ndarray) -> np.ndarray:
    """Return the phase of an object, 20 Å from slice to slice, after an epoch with a constraint."""
    data = live()
    model = made(data, slices=5, constraints={"it": constraint})
    with torch.no_grad():
        model.object.maps[0] = torch.from_numpy(phase_SHW)
    model.on_epoch_end(State(CONTEXT, 4, model, data, {}, Monitor()))
    return model.reconstruction().phase_SHW


def random_phase() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, *made(live(), slices=5).motion.shape_HW))


def test_coupled_slices_are_smoothed_by_a_gaussian_and_keep_what_is_alike():
    phase_SHW = random_phase()
    found_SHW = imposed(SliceCoupling(sigma_angstrom=15.0, every_epochs=1), phase_SHW)
    weights = np.exp(-0.5 * (np.arange(-3, 4) * 20.0 / 15.0) ** 2)
    padded = np.pad(phase_SHW, ((3, 3), (0, 0), (0, 0)), mode="edge")
    expected = sum(w * padded[i : i + 5] for i, w in enumerate(weights / weights.sum()))
    np.testing.assert_allclose(found_SHW, expected, atol=1e-5)
    alike_SHW = np.repeat(phase_SHW[:1], 5, axis=0)
    np.testing.assert_allclose(
        imposed(SliceCoupling(sigma_angstrom=15.0, every_epochs=1), alike_SHW), alike_SHW, atol=1e-5
    )


def test_the_missing_wedge_keeps_the_sum_of_slices_and_weakens_what_varies_along_the_beam():
    phase_SHW = random_phase()
    found_SHW = imposed(MissingWedge(weight=3.0, every_epochs=1), phase_SHW)
    np.testing.assert_allclose(found_SHW.sum(0), phase_SHW.sum(0), atol=1e-4)
    columns = phase_SHW.shape[2]
    wave = np.cos(2 * np.pi * np.arange(5) / 5)[:, None, None] * np.cos(2 * np.pi * 3 * np.arange(columns) / columns)
    wave_SHW = np.broadcast_to(wave, phase_SHW.shape).copy()
    along, across = 1 / (5 * 20.0), 3 / (columns * 0.3)
    share = 1 - 2 / np.pi * np.arctan(9 * along**2 / (across**2 + 1e-3))
    np.testing.assert_allclose(imposed(MissingWedge(weight=3.0, every_epochs=1), wave_SHW), share * wave_SHW, atol=1e-5)


def test_l1_is_the_mean_phase_and_absorption():
    model = made(live())
    with torch.no_grad():
        model.object.maps[0], model.object.maps[1] = -0.25, 0.5
    assert L1().build(None)({}, {}, model).item() == pytest.approx(0.75)
    phase, amplitude = torch.full((2, 3, 3), -0.25), torch.full((2, 3, 3), np.exp(-0.5))
    tells_no_slices = SimpleNamespace(phase=lambda: phase, amplitude=lambda: amplitude)
    assert L1().build(None)({}, {}, SimpleNamespace(object=tells_no_slices)).item() == pytest.approx(0.75)


def test_thirds_of_slices_that_three_does_not_divide_share_slices():
    stack_SHW = np.arange(1.0, 5.0)[:, None, None]
    np.testing.assert_allclose(rebinned(stack_SHW, 3).ravel(), [1 + 2 / 3, 4 / 3 + 6 / 3, 3 / 3 + 4])


def test_an_object_of_a_file_is_merged_or_split_into_as_many_slices(tmp_path):
    data = live()
    coarse = made(data, slices=2)
    with torch.no_grad():
        coarse.object.maps.uniform_(0.0, 0.3, generator=torch.Generator().manual_seed(0))
    write_files(coarse.reconstruction(), data, tmp_path)
    earlier = Pixels(path=tmp_path / "result.h5", name="object_slices")
    before_2HW = coarse.object.maps.detach()[0]
    split_4HW = made(data, slices=4, object=earlier).object.maps.detach()[0]
    torch.testing.assert_close(split_4HW, before_2HW.repeat_interleave(2, 0) / 2, rtol=0, atol=1e-5)
    thirds_3HW = made(data, slices=3, object=earlier).object.maps.detach()[0]
    parts = torch.stack((before_2HW[0] * 2 / 3, before_2HW.sum(0) / 3, before_2HW[1] * 2 / 3))
    torch.testing.assert_close(thirds_3HW, parts, rtol=0, atol=1e-5)


# ---- the specimen in the middle of its slices -----------------------------------------------------------------------


def test_an_object_beside_the_middle_moves_with_the_probe_and_makes_the_same_patterns():
    data = live(attrs.evolve(THICK, slices=5), torch.float64)
    model = made(data, slices=5, constraints={"it": DepthCentre(every_epochs=1)})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.object.maps[:, 3:4].uniform_(0.0, 0.4, generator=generator)  # one slice, of five: 1 behind the middle
        before = model.object.maps.clone()
    batch = next(iter(data.evaluate("train")))
    with torch.no_grad():
        seen, probe_MYX = model(batch)["intensities"], model.probe().clone()
        model.on_epoch_end(State(CONTEXT, 4, model, data, {}, Monitor()))
        torch.testing.assert_close(model.object.maps, before.roll(-1, 1), rtol=0, atol=0)
        torch.testing.assert_close(model(batch)["intensities"], seen, rtol=0, atol=1e-10 * float(seen.max()))
        assert not torch.allclose(model.probe(), probe_MYX)
        model.on_epoch_end(State(CONTEXT, 5, model, data, {}, Monitor()))
        torch.testing.assert_close(model.object.maps, before.roll(-1, 1), rtol=0, atol=0)  # it is in the middle


def test_what_leaves_at_one_end_is_added_to_the_last_slice_there():
    values_SHW = torch.arange(1.0, 5.0)[:, None, None]
    assert moved(values_SHW, 1).flatten().tolist() == [0.0, 1.0, 2.0, 7.0]
    assert moved(values_SHW, -1).flatten().tolist() == [3.0, 3.0, 4.0, 0.0]


def test_an_object_that_is_centred_needs_a_probe_that_trains(tmp_path):
    for more, expected in (("", 1), ("groups.probe = { start_epoch = 0, lr = 1e-3 }\n", 0)):
        recipe = resolve_text(RECIPE.replace("hooks.truth", f"{more}hooks.truth"), tmp_path).recipe
        assert len(list(DepthCentre(every_epochs=1).problems(recipe))) == expected


def test_the_slices_of_a_file_keep_their_thickness_between_vacuum(tmp_path, caplog):
    data = live()
    earlier = made(data, slices=2)
    with torch.no_grad():
        earlier.object.maps[0].uniform_(0.0, 0.3, generator=torch.Generator().manual_seed(0))
    write_files(earlier.reconstruction(), data, tmp_path)
    named = {"path": tmp_path / "result.h5", "name": "object_slices"}

    def begun(**settings: Any) -> Tensor:
        caplog.clear()
        into = {"slices": 6, "thickness_angstrom": 150.0, "object": Pixels(**named, **settings)}
        return made(data, **into).object.maps.detach()[0]

    within_6HW = begun(vacuum_angstrom=(25.0, 25.0))  # slices of 25 Å, of which two make one of the file
    before_2HW = earlier.object.maps.detach()[0]
    torch.testing.assert_close(within_6HW[1:5], before_2HW.repeat_interleave(2, 0) / 2, rtol=0, atol=1e-5)
    assert within_6HW[[0, 5]].abs().max() < 1e-12
    assert not caplog.messages
    begun()
    assert "100 Å thick together, and are stretched to 150 Å here" in caplog.text
    assert "vacuum_angstrom = [25, 25]" in caplog.text
    with pytest.raises(DataError, match="leaves nothing of the 150 Å"):
        begun(vacuum_angstrom=(100.0, 50.0))


# ---- what settings are refused or doubted ---------------------------------------------------------------------------


def test_a_coupling_that_reaches_no_neighbour_is_doubted(tmp_path):
    recipe = resolve_text(RECIPE, tmp_path).recipe  # slices are 33 Å apart
    for sigma, keys in ((5.0, ["sigma_angstrom"]), (12.0, [])):
        problems = SliceCoupling(sigma_angstrom=sigma).problems(recipe)
        assert [each.key for each in problems if isinstance(each, Problem)] == keys


def test_the_summary_of_a_scan_counts_all_slices_of_the_object(tmp_path):
    def memory(slices: int) -> str:
        recipe = resolve_text(RECIPE.replace("slices = 3, thick", f"slices = {slices}, thick"), tmp_path).recipe
        lines = [each for each in recipe.data.inspect(recipe, "all") if str(each).startswith("memory")]
        return str(lines[0]).split("object ")[1].split(",")[0]

    assert memory(2).split()[1] == memory(4).split()[1] == "KiB"
    assert float(memory(4).split()[0]) == pytest.approx(2 * float(memory(2).split()[0]), rel=0.01)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"slices": 3}, "thickness_angstrom"),
        ({"slices": 3, "thickness_angstrom": 50.0, "object": Flat()}, "object"),
        ({"thickness_angstrom": 50.0}, "thickness_angstrom"),
        ({"tilt_mrad": (1.0, 0.0)}, "tilt_mrad"),
    ],
)
def test_settings_of_slices_that_do_not_fit_are_refused(settings, key, tmp_path):
    recipe = resolve_text(RECIPE, tmp_path).recipe
    problems = list(Ptychography(probe=Aperture(), **settings).problems(recipe))
    assert [each.key for each in problems if isinstance(each, Problem) and each.severity == "error"] == [key]


def test_a_tilt_that_trains_while_columns_may_lean_is_doubted(tmp_path):
    recipe = resolve_text(RECIPE, tmp_path).recipe  # group tilt trains from epoch 0
    for coupling, keys in (
        ({}, ["constraints"]),
        ({"it": SliceCoupling(sigma_angstrom=50.0, every_epochs=1)}, ["constraints"]),
        ({"it": SliceCoupling(sigma_angstrom=50.0, start_epoch=1)}, ["constraints"]),
        ({"it": SliceCoupling(sigma_angstrom=50.0, stop_epoch=1)}, []),
        ({"it": SliceCoupling(sigma_angstrom=50.0)}, []),
    ):
        model = Ptychography(probe=Aperture(), slices=3, thickness_angstrom=100.0, constraints=coupling)
        assert [each.key for each in model.problems(recipe)] == keys


def test_groups_of_slices_exist_only_where_there_are_several():
    assert "thickness" not in Ptychography(probe=Aperture()).groups()
    thick = Ptychography(probe=Aperture(), slices=2, thickness_angstrom=50.0)
    model = made(live(), slices=2)
    assert set(thick.groups()) == set(thick.parameter_groups(model))


def doubts(slices: int, thickness_angstrom: float, **changes: Any) -> list[str]:
    """Return the keys that are doubted for 300 Å³ of a defocused probe of 25 mrad at 80 keV."""
    data = attrs.evolve(SimulatedDiffraction(detector_size=64), **changes)
    found = inspect_slices(data, Aperture(), slices, thickness_angstrom)
    return [each.key for each in found if isinstance(each, Problem)]


def test_slices_that_are_right_are_not_doubted():
    assert doubts(6, 100.0) == []


def test_slices_that_are_too_thick_too_thin_or_spread_beyond_the_grid_are_doubted():
    assert doubts(1 + 1, 300.0) == ["slices"]
    assert doubts(3, 10.0) == ["thickness_angstrom"]  # nm, taken for Å
    assert doubts(40, 1000.0) == ["thickness_angstrom"]  # the other way round


def test_a_tilt_that_moves_the_beam_off_its_patch_is_doubted():
    """For example degrees · 1000, or an angle of the stage."""
    for tilt_mrad, keys in (((5.0, 0.0), []), ((0.0, -150.0), ["tilt_mrad"])):
        found = inspect_slices(SimulatedDiffraction(detector_size=64), Aperture(), 6, 100.0, tilt_mrad)
        assert [each.key for each in found if isinstance(each, Problem)] == keys


@pytest.mark.slow
@pytest.mark.parametrize(("defocus", "is_doubted"), [(80.0, False), (-80.0, True)])
def test_a_defocus_is_doubted_only_if_no_depth_of_the_specimen_explains_it(defocus, is_doubted, tmp_path):
    """One slice fits best in the lower grain, at three quarters of the thickness, and not in the middle."""
    data = SimulatedDiffraction(
        scan_shape=(18, 18), step_angstrom=0.6, pixel_size_angstrom=0.3, energy_kev=200.0, semiangle_mrad=30.0
    )
    data = attrs.evolve(data, defocus_angstrom=80.0, dose_per_square_angstrom=1e6, slices=8, thickness_angstrom=80.0)
    recipe = resolve_text(RECIPE, tmp_path).recipe
    found = inspect_geometry(data, Aperture(defocus_angstrom=defocus), recipe, 40.0)
    assert any(isinstance(each, Problem) for each in found) == is_doubted


def test_a_simulation_of_a_tilted_crystal_is_what_a_tilted_model_says():
    """Columns go through the whole specimen; the simulation is in numpy."""
    crystal = attrs.evolve(THICK, grains=1, dose_per_square_angstrom=1e9, tilt_mrad=(8.0, -5.0))
    data = live(crystal)
    truth_SKL = data.scan.truth.slices_SKL
    assert (truth_SKL == truth_SKL[0]).all()
    misfits = []
    for tilt_mrad in ((8.0, -5.0), (0.0, 0.0), (-8.0, 5.0)):
        model = made(data, tilt_mrad=tilt_mrad)
        give_truth(model, data)
        misfits.append(misfit(model, data))
    assert misfits[0] < 1e-4
    assert min(misfits[1:]) > 10 * misfits[0]


def test_the_depth_that_a_probe_of_a_file_resolves_is_that_of_its_own_disc(tmp_path):
    data = SimulatedDiffraction(detector_size=64)
    np.save(tmp_path / "probe.npy", Aperture().build(live(data)))
    unknown = Unknown(detector_size=64)
    for thickness, keys in ((100.0, []), (10.0, ["thickness_angstrom"])):  # the second in nm
        found = list(inspect_slices(unknown, ProbeFromFile(path=tmp_path / "probe.npy"), 6, thickness))
        assert [each.key for each in found if isinstance(each, Problem)] == keys
    (exact, *_), (from_disc, *_) = inspect_slices(data, Aperture(), 6, 100.0), found
    angstrom = [float(str(each).split("about ")[1].split()[0]) for each in (exact, from_disc)]
    assert angstrom[1] == pytest.approx(angstrom[0], rel=0.1)


def test_without_a_wavelength_slices_are_refused():
    with pytest.raises(DataError, match="energy_kev"):
        made(live(wavelength_angstrom=None), probe=Aperture())
