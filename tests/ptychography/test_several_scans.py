"""Several scans of one specimen, with a probe each."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem, RecipeError
from trainkit.recipe.resolve import Resolved, resolve_text
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.preflight.inspection import inspect_geometry
from trainkit_ptychography.preflight.single_scans import visits
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.probes.per_scan import ProbePerScan
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

CPU = torch.device("cpu")
CONTEXT = Context(0, CPU, Path())
GENERATOR = np.random.default_rng(3)


def random_complex(*shape: int) -> torch.Tensor:
    return torch.from_numpy(GENERATOR.normal(size=shape) + 1j * GENERATOR.normal(size=shape))


def test_patterns_with_probes_of_their_own_are_those_of_each_probe_alone():
    probe_MBYX, patch_BYX = random_complex(2, 3, 6, 5), random_complex(3, 6, 5)
    shift_B2 = torch.from_numpy(GENERATOR.normal(size=(3, 2)))
    found = intensities(probe_MBYX, shift_B2, patch_BYX)
    for number in range(3):
        one = slice(number, number + 1)
        alone = intensities(probe_MBYX[:, number], shift_B2[one], patch_BYX[one])
        torch.testing.assert_close(found[one], alone, rtol=1e-12, atol=1e-12)
    arguments = [each.requires_grad_() for each in (probe_MBYX, shift_B2, patch_BYX)]
    assert torch.autograd.gradcheck(intensities, arguments)


def test_each_scan_keeps_the_power_of_its_probe_and_orthogonal_modes_of_its_own():
    modes_MYX = random_complex(4, 8, 8).numpy()
    for of_scan, power in ((slice(2), 0.5), (slice(2, 4), 1.5)):
        modes_MYX[of_scan] *= np.sqrt(power / (np.abs(modes_MYX[of_scan]) ** 2).sum())
    probe = ProbeModes(modes_MYX, torch.float64, CPU, scan_powers=(0.5, 1.5))
    torch.testing.assert_close(probe().detach(), torch.from_numpy(modes_MYX), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        probe.modes[:2] *= 3.0
    probe.keep_power()
    probe.orthogonalise()
    found_MS = probe().detach().flatten(1)
    powers = found_MS.abs().square().sum(1)
    torch.testing.assert_close(torch.stack([powers[:2].sum(), powers[2:].sum()]), torch.tensor([0.5, 1.5]).double())
    for of_scan, before in ((slice(2), modes_MYX[:2]), (slice(2, 4), modes_MYX[2:])):
        gram = found_MS[of_scan] @ found_MS[of_scan].conj().T
        assert abs(gram[0, 1]) < 1e-12
        incoherent = (np.abs(np.fft.fft2(before)) ** 2).sum(0)
        again = (np.abs(np.fft.fft2(probe().detach()[of_scan].numpy())) ** 2).sum(0)
        np.testing.assert_allclose(again, incoherent, rtol=1e-9)


# ---- in a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A file with two scans of one specimen, whose defoci and doses differ, and the same patterns joined by hand."""
    made = tmp_path_factory.mktemp("scans")
    with h5py.File(made / "scan.h5", "w") as file:
        for name, defocus, dose in (("a", 60.0, 1e5), ("b", 160.0, 3e5)):
            settings = SimulatedDiffraction(
                scan_shape=(9, 9), detector_size=32, defocus_angstrom=defocus, dose_per_square_angstrom=dose
            )
            patterns, scan = settings.read()
            file[f"{name}/dp"] = np.fft.fftshift(np.asarray(patterns[:]), axes=(1, 2))
            file[f"{name}/pos"] = scan.positions_N2
        for name in ("dp", "pos"):
            file[name] = np.concatenate([file["a"][name][()], file["b"][name][()]])
        (made / "data.toml").write_text(
            f"energy_kev = 80.0\npixel_size_angstrom = {scan.pixel_size_angstrom}\n"
            f"semiangle_mrad = {scan.semiangle_mrad}\ndefocus_angstrom = 60.0\n"
        )
    return made


SHARED = 'probe = { use = "aperture" }'
OWN = (
    'probe = { use = "per_scan", scans = { a = { use = "aperture" }, '
    'b = { use = "aperture", defocus_angstrom = 160.0 } } }'
)
BOTH = 'patterns = ["a/dp", "b/dp"]\npositions = ["a/pos", "b/pos"]\n'
FIRST, BY_HAND = ('patterns = "a/dp"\npositions = "a/pos"\n', 'patterns = "dp"\npositions = "pos"\n')


def recipe(folder: Path, probe: str = OWN, data: str = BOTH, more: str = "") -> Resolved:
    text = f'trainkit = 1\n[run]\nepochs = 2\n[data]\nuse = "diffraction_hdf5"\npath = "scan.h5"\n{data}'
    text += f'positions_unit = "pixels"\n{(folder / "data.toml").read_text()}'
    text += f'{more}[model]\nuse = "single_slice_ptychography"\n{probe}\n[losses.data]\nuse = "amplitude"\n'
    return resolve_text(text + '[optimizer]\nuse = "adam"\nlr = 1e-3\n', folder)


def built(resolved: Resolved) -> tuple[PtychographyModule, object]:
    data = resolved.recipe.data.build(CONTEXT)
    model = resolved.recipe.model.build(data)
    assert isinstance(model, PtychographyModule)
    return model, data


def test_each_pattern_is_made_with_the_probe_of_its_scan(folder):
    model, data = built(recipe(folder))
    totals = np.array([h5py.File(folder / "scan.h5")[f"{name}/dp"][()].sum((1, 2)).mean() for name in "ab"])
    np.testing.assert_allclose(data.scan_powers, totals / totals.mean(), rtol=1e-5)
    index = torch.tensor([3, 100, 5, 161])
    found = model({"index": index})["intensities"].detach()
    for place, (scan, defocus) in enumerate(((0, 60.0), (1, 160.0), (0, 60.0), (1, 160.0))):
        one = Aperture(defocus_angstrom=defocus).build(data)
        corner, shift = model.motion.split(index[place : place + 1], model.dr[index[place : place + 1]], model.scan)
        probe = torch.from_numpy(one * np.sqrt(data.scan_powers[scan])).to(torch.complex64)
        alone = intensities(probe, shift, model.object(corner)[0]).detach()
        torch.testing.assert_close(found[place], alone[0], rtol=1e-3, atol=1e-8)


def test_the_scan_of_a_pattern_is_known_after_some_were_left_out(folder):
    resolved = recipe(folder, more="leave_out = { points = [0, 1, 90] }\n")
    scan = resolved.recipe.data.read().scan
    assert scan.scan_N.tolist() == [0] * 79 + [1] * 80
    few = scan.some(np.array([0, 78, 79]))
    assert few.scan_N.tolist() == [0, 0, 1]
    assert few.points_N.tolist() == [2, 80, 81]


def test_each_half_of_the_points_has_half_of_every_scan(folder):
    for part in (1, 2):
        _, data = built(recipe(folder, more=f"half = {{ part = {part} }}\n"))
        trained = data.scan.scan_N[data.train_index.numpy()]
        assert abs(int((trained == 0).sum()) - int((trained == 1).sum())) <= 5  # the same places, seen by both


def test_the_result_says_to_which_scan_a_mode_belongs(folder, tmp_path):
    model, data = built(recipe(folder))
    found = model.reconstruction()
    assert (found.probe_MYX.shape[0], found.num_scans) == (2, 2)
    from trainkit_ptychography.models.output import write_files

    write_files(found, data, tmp_path)
    with h5py.File(tmp_path / "result.h5") as file:
        assert file["probe_scan"][()].tolist() == [0, 1]


def test_probes_that_do_not_fit_the_scans_are_refused(folder):
    with pytest.raises(DataError, match=r"made of 1 scans, and model\.probe has 2 probes"):
        built(recipe(folder, data=FIRST))
    three = OWN.replace("b = {", "c = { use = 'aperture' }, b = {")
    with pytest.raises(DataError, match=r"made of 2 scans, and model\.probe has 3"):
        built(recipe(folder, three))
    with pytest.raises(DataError, match=r"as many modes; they have: a 2, b 1"):
        built(recipe(folder, OWN.replace('"aperture" }', '"aperture", modes = 2 }')))
    with pytest.raises(RecipeError, match="must hold two probes or more"):
        recipe(folder, 'probe = { use = "per_scan", scans = { a = { use = "aperture" } } }')
    with pytest.raises(RecipeError, match="belongs to the single probes"):
        recipe(folder, OWN.replace("scans =", "modes = 2, scans ="))
    assert Ptychography(probe=ProbePerScan(scans={"a": Aperture(), "b": Aperture()})).groups_with_curvature() == ()


def test_visits_count_how_often_a_place_had_been_scanned():
    once = np.argwhere(np.ones((3, 3))).astype(float)
    assert visits(once) is None
    assert visits(np.concatenate([once, once[::-1]])).tolist() == [0] * 9 + [1] * 9
    assert visits(np.concatenate([once, once[:2]])) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probe", "data", "said"),
    [
        (OWN, BOTH, None),
        (SHARED, BOTH, "the 2 scans fit different defoci"),
        (SHARED, BY_HAND, "the 2 times that each place was scanned fit different defoci"),
        (SHARED, FIRST, None),
    ],
)
def test_two_defoci_under_one_probe_are_doubted_and_probes_of_their_own_are_not(probe, data, said, folder):
    settings = recipe(folder, probe, data).recipe
    seen = list(inspect_geometry(settings.data, settings.model.probe, settings))
    doubts = [each.message for each in seen if isinstance(each, Problem)]
    assert (doubts == []) == (said is None), doubts
    assert said is None or any(said in each for each in doubts)
