"""Several scans of a thick specimen, with a probe, a change of the probe, and a tilt for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem, RecipeError
from trainkit.console import Console
from trainkit.engine.resume import resume
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.output import scan_pictures
from trainkit_ptychography.preflight.inspection import inspect_geometry
from trainkit_ptychography.preflight.thick import inspect_slices
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.probes.opr import OPRChoice, interpolated
from trainkit_ptychography.probes.per_scan import ProbePerScan
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

pytestmark = pytest.mark.geometry_search

CPU = torch.device("cpu")
CONTEXT = Context(0, CPU, Path())
GENERATOR = np.random.default_rng(11)
PAIR = SimulatedDiffraction(
    scan_shape=(4, 5),
    detector_size=24,
    pixel_size_angstrom=0.3,
    semiangle_mrad=30.0,
    position_error_angstrom=0.0,
    slices=3,
    thickness_angstrom=90.0,
    further_defoci_angstrom=(110.0,),
    further_tilts_mrad=((8.0, -5.0),),
)
TWO = ProbePerScan(scans={"a": Aperture(), "b": Aperture(defocus_angstrom=110.0)})
TILTS = ((0.0, 0.0), (8.0, -5.0))


def live(settings: SimulatedDiffraction = PAIR) -> LiveDiffraction:
    return LiveDiffraction(checked(settings.read()), CONTEXT, 20, 0.0, dtype=torch.float64)


def made(data: LiveDiffraction, **changes: Any) -> PtychographyModule:
    chosen: dict[str, Any] = {"probe": TWO, "slices": 3, "thickness_angstrom": 90.0, "scan_tilts_mrad": TILTS}
    model = Ptychography(**(chosen | changes)).build(data)
    assert isinstance(model, PtychographyModule)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        model.object.maps.copy_(0.2 * torch.rand(model.object.maps.shape, generator=generator))
        if model.probe.opr is not None:
            model.probe.opr.weights.normal_(0.05, 0.1, generator=generator)
    return model


# ---- the model ------------------------------------------------------------------------------------------------------


def test_each_pattern_is_that_of_its_own_probe_through_its_own_tilt():
    data = live()
    both, index = made(data), torch.tensor([3, 25, 39, 0])
    found = both({"index": index})["intensities"].detach()
    for place, scan in enumerate((0, 1, 1, 0)):
        alone = made(data, probe=Aperture(defocus_angstrom=(60.0, 110.0)[scan]), tilt_mrad=TILTS[scan])
        alone.propagation.scan_tilts = None  # type: ignore[assignment]
        expected = data.scan_powers[scan] * alone({"index": index[place : place + 1]})["intensities"].detach()
        torch.testing.assert_close(found[place], expected[0], rtol=1e-9, atol=1e-15)


def test_one_probe_may_pass_a_specimen_that_was_tilted_between_scans():
    data = live(attrs.evolve(PAIR, further_defoci_angstrom=()))
    tilted = made(data, probe=Aperture())
    for scan, tilt in enumerate(TILTS):
        alone, index = made(data, probe=Aperture(), tilt_mrad=tilt, scan_tilts_mrad=()), torch.arange(20) + 20 * scan
        torch.testing.assert_close(tilted({"index": index})["intensities"], alone({"index": index})["intensities"])
    np.testing.assert_allclose(tilted.propagation.tilts(), np.repeat(np.array(TILTS), 20, axis=0))
    assert tilted.reconstruction().tilt_mrad.shape == (40, 2)


def test_the_simulation_of_a_tilt_pair_is_what_the_model_says():
    settings = attrs.evolve(PAIR, dose_per_square_angstrom=1e9)
    data = live(settings)
    (batch,) = data.some(torch.arange(20, 40))
    misfits = []
    for tilts in (TILTS, ((8.0, -5.0), (0.0, 0.0)), ((0.0, 0.0), (-8.0, 5.0))):
        model = made(data, scan_tilts_mrad=tilts)
        slices_SKL = torch.from_numpy(data.scan.truth.slices_SKL)
        with torch.no_grad():
            model.object.maps.zero_()
            model.object.maps[0, :, : slices_SKL.shape[1], : slices_SKL.shape[2]] = slices_SKL
            misfits.append(float((model(batch)["intensities"].sqrt() - batch["amplitudes"]).square().mean()))
    assert misfits[0] < 0.05 * min(misfits[1:])


def test_gradients_of_all_that_scans_have_of_their_own_are_those_of_finite_differences():
    data = live()
    model = made(data, probe=attrs.evolve(TWO, opr_modes=2), waves="recomputed")
    batch = next(iter(data.some(torch.arange(10, 30))))

    def loss() -> torch.Tensor:
        return (model(batch)["intensities"].sqrt() * batch["amplitudes"]).sum()

    loss().backward()
    parameters = dict(model.named_parameters())
    for name in ("probe.modes", "probe.opr.modes", "probe.opr.weights", "propagation.scan_tilts", "object.maps"):
        parameter = parameters[name]
        direction = torch.from_numpy(GENERATOR.normal(size=parameter.shape))
        step, differences = 1e-5, []
        with torch.no_grad():
            for change in (step, -2 * step, step):
                parameter += change * direction
                differences.append(float(loss()))
        expected = (differences[0] - differences[1]) / (2 * step)
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-5), name


# ---- a probe of each scan that changes over it ----------------------------------------------------------------------


def changing() -> tuple[ProbeModes, torch.Tensor, torch.Tensor]:
    """Return probes of two scans of two modes each, of which points 4 and 9 are held out; and who belongs where."""
    scan_N = torch.tensor([0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    trained = torch.tensor([each for each in range(12) if each not in (4, 9)])
    modes_MYX = GENERATOR.normal(size=(4, 8, 6)) + 1j * GENERATOR.normal(size=(4, 8, 6))
    for of_scan, power in ((slice(2), 0.5), (slice(2, 4), 1.5)):
        modes_MYX[of_scan] *= np.sqrt(power / (np.abs(modes_MYX[of_scan]) ** 2).sum())
    choice = OPRChoice(3, 12, trained, 0, scan_N)
    probe = ProbeModes(modes_MYX, torch.float64, CPU, scan_powers=(0.5, 1.5), opr=choice)
    assert probe.opr is not None
    with torch.no_grad():
        probe.opr.weights.normal_(0.05, 0.1, generator=torch.Generator().manual_seed(1))
        probe.opr.modes.add_(0.1 * torch.from_numpy(GENERATOR.normal(size=probe.opr.modes.shape)))
    return probe, scan_N, trained


def test_the_probe_of_a_pattern_is_the_mean_probe_of_its_scan_and_the_modes_of_its_scan():
    probe, scan_N, _ = changing()
    modes_KMYX, weights_NK = (each.numpy() for each in probe.changes())
    found = probe.of_patterns(scan_N, torch.arange(12)).detach().numpy()
    for point, scan in enumerate(scan_N.tolist()):
        own = slice(2 * scan, 2 * scan + 2)
        expected = probe().detach().numpy()[own] + np.einsum("k,kmyx->myx", weights_NK[point], modes_KMYX[:, own])
        np.testing.assert_allclose(found[:, point], expected, rtol=1e-12, atol=1e-14)


def test_putting_scans_in_order_changes_no_pattern_and_holds_out_what_is_held_out():
    probe, scan_N, trained = changing()
    assert probe.opr is not None
    patch_BYX = torch.from_numpy(GENERATOR.normal(size=(10, 8, 6)) + 1j * GENERATOR.normal(size=(10, 8, 6)))

    def patterns() -> torch.Tensor:
        waves_MBYX = probe.of_patterns(scan_N[trained], trained).detach() * patch_BYX
        return torch.fft.fft2(waves_MBYX).abs().square().sum(0)

    before = patterns()
    probe.opr.weights.requires_grad_(True)
    probe.orthogonalise()
    probe.opr.put_in_order(probe.modes.detach(), True, False)
    torch.testing.assert_close(patterns(), before, rtol=1e-9, atol=1e-9)
    weights_NK = probe.opr.weights.detach()
    for scan in (0, 1):
        of_scan = [each for each in trained.tolist() if scan_N[each] == scan]
        products_KK = weights_NK[of_scan].T @ weights_NK[of_scan]
        assert float((products_KK - products_KK.diag().diag()).abs().max()) < 1e-12
        assert float(weights_NK[of_scan].mean(0).abs().max()) < 1e-12
    torch.testing.assert_close(weights_NK[4], torch.lerp(weights_NK[2], weights_NK[5], 2 / 3))  # of scan 1: 2, 5, …
    torch.testing.assert_close(weights_NK[9], weights_NK[8])  # the last of scan 0
    probe.keep_power()
    for scan, power in ((0, 0.5), (1, 1.5)):
        of_scan = torch.tensor([each for each in trained.tolist() if scan_N[each] == scan])
        powers_B = probe.of_patterns(scan_N[of_scan], of_scan).abs().square().sum((0, 2, 3))
        assert float(powers_B.detach().mean()) == pytest.approx(power, abs=1e-12)


def test_weights_are_interpolated_within_a_scan_alone():
    weights_NK = torch.from_numpy(GENERATOR.normal(size=(12, 2)))
    points, known = torch.tensor([1, 3, 5, 8, 11]), torch.tensor([8, 1])
    found = interpolated(weights_NK, points, known)
    expected = [np.interp([1, 3, 5, 8, 11], [1, 8], weights_NK[[1, 8], column]) for column in range(2)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-14)


def test_each_scan_begins_with_the_drift_of_its_own_probe():
    settings = SimulatedDiffraction(
        scan_shape=(9, 9),
        detector_size=32,
        dose_per_square_angstrom=1e6,
        position_error_angstrom=0.0,
        defocus_drift_angstrom=60.0,
        further_defoci_angstrom=(120.0,),
        validation_fraction=0.1,
    )
    data = settings.build(CONTEXT)
    probe = ProbePerScan(scans={"a": Aperture(), "b": Aperture(defocus_angstrom=120.0)}, opr_modes=1)
    model = Ptychography(probe=probe).build(data)
    phase_KL = torch.from_numpy(data.scan.truth.phase_KL)
    with torch.no_grad():
        model.object.maps[0, : phase_KL.shape[0], : phase_KL.shape[1]] = phase_KL
    model.probe.opr.weights.requires_grad_(True)
    model.probe.opr.begin(model.probe.modes.detach(), model._fit_changes, True)
    weights_SP = model.probe.opr.weights.detach()[:, 0].numpy().reshape(2, 81)
    for weights_P in weights_SP:
        assert abs(np.corrcoef(weights_P, np.arange(81))[0, 1]) > 0.95


# ---- in a run -------------------------------------------------------------------------------------------------------

RECIPE = """
trainkit = 1
run = { name = "scans", epochs = 3, device = "cpu" }
losses.data = { use = "amplitude" }
optimizer = { use = "adam" }
groups.probe = { start_epoch = 0, lr = 1e-3 }
groups.scan_tilts = { start_epoch = 0, lr = 0.1 }
groups.tilt = { start_epoch = 1, lr = 0.1 }
groups.opr_weights = { start_epoch = 1, lr = 1e-2 }
groups.opr_modes = { start_epoch = 1, lr = 1e-3 }
[model]
use = "ptychography"
slices = 3
thickness_angstrom = 90.0
scan_tilts_mrad = [[0.0, 0.0], [6.0, -4.0]]
[model.probe]
use = "per_scan"
opr_modes = 1
scans = { a = { use = "aperture", modes = 2 }, b = { use = "aperture", modes = 2, defocus_angstrom = 110.0 } }
[data]
use = "diffraction_simulated"
scan_shape = [5, 5]
detector_size = 24
slices = 3
further_defoci_angstrom = [110.0]
further_tilts_mrad = [[8.0, -5.0]]
batch_size = 16
validation_fraction = 0.2
"""


@pytest.mark.slow  # two runs of three epochs
def test_a_run_with_all_of_it_resumes_to_the_bit_and_leaves_what_each_scan_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = start(resolve_text(RECIPE, tmp_path), Console(quiet=True)).run
    (folder,) = (tmp_path / "runs" / "scans").iterdir()
    again = resume(folder, Console(quiet=True), epoch=2).run
    parameters = dict(run.state.model.state_dict())
    for name, values in again.state.model.state_dict().items():
        assert torch.equal(values, parameters[name]), name
    assert again.state.metrics["val/loss"] == run.state.metrics["val/loss"]
    propagation = run.state.model.propagation
    assert propagation.scan_tilts.detach().mean(0).abs().max() < 1e-5  # what they have in common is the tilt
    rows = run.state.metrics["specimen/tilt_of_scan_2_rows_mrad"]
    assert rows == pytest.approx(float((propagation.tilt + propagation.scan_tilts[1])[0].detach()))
    with h5py.File(run.state.folder / "result.h5") as file:
        assert file["probe_scan"][()].tolist() == [0, 0, 1, 1]
        assert file["opr_modes"].shape == (1, 4, 24, 24)
        assert file["tilt"].shape == (50, 2)
        assert file["tilt"][30, 0] == pytest.approx(rows)
    found = run.state.model.reconstruction()
    scan = run.state.data.scan
    points = run.state.data.train_index.numpy()
    image = scan_pictures.opr_weights(scan.positions_N2, found.opr_weights_NK, points, 0.3, "a run", scan.scan_N)
    whole = scan_pictures.opr_weights(scan.positions_N2, found.opr_weights_NK, points, 0.3, "a run")
    assert image.shape[1] == 1440
    assert not np.array_equal(image[:700], whole[: len(image)][:700])  # a map for each scan, beside each other


def test_tilts_that_do_not_fit_the_scans_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"made of 2 scans, and model\.scan_tilts_mrad has 3 tilts"):
        made(live(), scan_tilts_mrad=(*TILTS, (1.0, 1.0)))
    found = list(inspect_slices(PAIR, TWO, 3, 90.0, scan_tilts_mrad=(*TILTS, (1.0, 1.0))))
    assert [each.key for each in found if isinstance(each, Problem)] == ["scan_tilts_mrad"]
    assert any("tilts of the scans: 0, 0 mrad; 8, -5 mrad" in each for each in found if isinstance(each, str))
    far = list(inspect_slices(PAIR, TWO, 3, 90.0, scan_tilts_mrad=((0.0, 0.0), (0.0, 150.0))))
    assert [each.key for each in far if isinstance(each, Problem)] == ["scan_tilts_mrad"]
    with pytest.raises(RecipeError, match="has no effect on a single slice"):
        resolve_text(small_recipe("scan_tilts_mrad = [[0.0, 0.0], [5.0, 0.0]]"), tmp_path)
    more = "further_tilts_mrad = [[1.0, 0.0]]\nfurther_defoci_angstrom = [1.0, 2.0]\nslices = 2"
    with pytest.raises(RecipeError, match="are 1, and further_defoci_angstrom are 2"):
        resolve_text(small_recipe().replace("[model]", f"{more}\n[model]"), tmp_path)
    settings = Ptychography(probe=Aperture(), slices=2, thickness_angstrom=50.0)
    assert "scan_tilts" not in settings.groups()
    assert "scan_tilts" in attrs.evolve(settings, scan_tilts_mrad=TILTS).groups()


@pytest.mark.slow
def test_scans_of_two_tilts_are_looked_at_one_by_one(tmp_path):
    pair = attrs.evolve(PAIR, scan_shape=(8, 8), detector_size=32, further_defoci_angstrom=())
    recipe = resolve_text(RECIPE, tmp_path).recipe
    seen = list(inspect_geometry(pair, Aperture(), recipe, 45.0, (0.0, 0.0), TILTS))
    assert [each for each in seen if isinstance(each, Problem)] == []
    lines = [each for each in seen if isinstance(each, str)]
    assert [each[-9:] for each in lines if each.startswith("geometry")] == [" (scan 0)", " (scan 1)"]
    assert not [each for each in lines if "does not show the same place" in each]
