"""A first recipe for a scan: what a file says is in it, and what it does not say is asked for."""

from __future__ import annotations

import bz2
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from clients.planned import planned

from trainkit import Problem, RecipeError
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.recognised import recognised, with_sets
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.planning.staged import StagedPlanner
from trainkit_ptychography.preflight import inspection
from trainkit_ptychography.preflight.advice import Advice
from trainkit_ptychography.scans.simulated_near_field import SimulatedNearField


def drafted(path: Path, *sets: str) -> str:
    found = with_sets(recognised(path, None), sets)
    return "\n".join(line for line in planned(StagedPlanner(), found) if isinstance(line, str))


def scan(path: Path, positions: str = "positions_nominal_A", beam: str = "centre", **attributes: Any) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        spot = 40 * np.exp(-((np.mgrid[:16, :16] - 8) ** 2).sum(axis=0) / 18)
        spot = np.fft.ifftshift(spot) if beam == "corner" else spot if beam == "centre" else np.full_like(spot, 5)
        file["entry/intensity"] = rng.poisson(np.tile(spot, (5, 6, 1, 1))).astype(np.uint16)
        file["entry/intensity_noiseless"] = np.ones((5, 6, 16, 16), np.float32)
        file["background"] = np.ones((30, 16, 16), np.float32)
        file[positions] = rng.random((30, 2))
        file["positions_true_A"] = rng.random((30, 2))
        file["phase"] = np.ones((64, 64), np.float32)
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def test_what_a_file_says_is_in_the_recipe(tmp_path: Path) -> None:
    known = {"energy_eV": 80000.0, "dk_invA": 0.039, "px_A": 0.4, "semiangle_rad": 0.025, "defocus_A": 60.0}
    path = scan(tmp_path / "scan.h5", wavelength_A=0.0418, title="a text", counts=[1, 2], **known)
    found = resolve_text(drafted(path), tmp_path)
    data: Any = found.recipe.data
    assert (data.patterns, data.positions, data.positions_unit) == (
        "entry/intensity",
        "positions_nominal_A",
        "angstrom",
    )
    assert (data.energy_kev, data.semiangle_mrad, data.defocus_angstrom) == (80.0, 25.0, 60.0)
    assert (data.dk_per_angstrom, data.pixel_size_angstrom, data.wavelength_angstrom) == (0.039, None, None)
    assert data.path == path


def test_what_it_does_not_say_is_refused_by_check_until_it_is_written(tmp_path: Path) -> None:
    text = drafted(scan(tmp_path / "scan.h5", positions="scan_points"))
    with pytest.raises(InvalidRecipe) as caught:
        resolve_text(text, tmp_path)
    said = str(caught.value)
    for key in ("positions_unit", "dk_per_angstrom", "energy_kev", "semiangle_mrad", "defocus_angstrom"):
        assert f"data.{key}: is a placeholder" in said or f"data.{key}: error: is a placeholder" in said, said
    assert "energy in keV" in said
    for key, value in (
        ("positions_unit", '"nm"'),
        ("dk_per_angstrom", "0.04"),
        ("energy_kev", "80"),
        ("semiangle_mrad", "25"),
        ("defocus_angstrom", "50"),
    ):
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.split("\n")]
        text = "\n".join(lines)
    assert resolve_text(text, tmp_path).recipe.run.epochs == 30


def test_a_reason_tells_what_the_file_says_from_what_was_told(tmp_path: Path) -> None:
    text = drafted(scan(tmp_path / "scan.h5", energy_eV=80000.0, dk_invA=0.039), "data.defocus_angstrom=60")
    said = dict(line.split("#") for line in text.split("\n") if line.startswith(("energy", "dk", "defocus")))
    assert {setting.split()[0]: reason.strip() for setting, reason in said.items()} == {
        "defocus_angstrom": "as --set says",
        "dk_per_angstrom": "the file says it",
        "energy_kev": "the file says it",
    }


def test_the_beam_is_looked_for_in_the_patterns(tmp_path: Path) -> None:
    for beam in ("centre", "corner"):
        assert f'zero_frequency = "{beam}"' in drafted(scan(tmp_path / f"{beam}.h5", beam=beam))
    assert 'zero_frequency = "<' in drafted(scan(tmp_path / "flat.h5", beam="none"))


def spots(num: int, dose: float, hot: bool = False) -> np.ndarray:
    """Return counts of a bright disc with a weak background of light around it."""
    row, column = np.mgrid[:24, :24] - 12
    expected = np.where(np.hypot(row, column) < 6, 1.0, 0.02) * dose
    counts = np.random.default_rng(1).poisson(expected, (num, 24, 24))
    if hot:
        counts[:, 3, 20] = np.random.default_rng(2).poisson(20 * dose, num)
    return counts.astype(np.uint16)


@pytest.mark.parametrize(("dose", "loss"), [(5.0, "poisson"), (2000.0, "amplitude")])
def test_where_counts_are_few_they_are_compared_and_not_their_roots(dose: float, loss: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", data=spots(64, dose), scan=4 * np.random.default_rng(0).random((64, 2)))
    text = drafted(tmp_path / "scan.npz").replace("\n# ", " ")
    assert f'use = "{loss}"' in text
    assert ("roots of so few" in text) == (loss == "poisson")
    assert ("counts are many" in text) == (loss == "amplitude")


def test_counts_are_seen_before_anybody_says_where_the_points_are(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", spots(64, 5.0))
    text = drafted(tmp_path / "scan.npy")
    assert 'raster = "<' in text
    assert 'use = "poisson"' in text
    np.save(tmp_path / "scaled.npy", np.sqrt(spots(64, 5.0)))
    assert "the patterns hold no counts" in drafted(tmp_path / "scaled.npy")


def test_pixels_that_did_not_measure_are_left_out_and_the_recipe_says_why(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", data=spots(64, 30.0, hot=True), scan=4 * np.random.default_rng(0).random((64, 2)))
    text = drafted(tmp_path / "scan.npz")
    line = next(line for line in text.split("\n") if line.startswith("prepare = "))
    assert line == "prepare = { bad_pixels = [[3, 20]] }"
    assert "# 1 pixel is hot" in text
    np.savez(tmp_path / "scan.npz", data=spots(64, 30.0), scan=4 * np.random.default_rng(0).random((64, 2)))
    assert "prepare" not in drafted(tmp_path / "scan.npz")


def test_patterns_that_cannot_be_opened_make_the_recipe_doubtful(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", data=spots(64, 5.0), scan=np.random.default_rng(0).random((63, 2)))
    said = list(planned(StagedPlanner(), recognised(tmp_path / "scan.npz", None)))
    (doubt,) = (each.message for each in said if isinstance(each, Problem))
    assert "could not be looked into" in doubt
    assert "64 patterns but positions of shape (63, 2)" in doubt
    assert any(isinstance(each, str) and "patterns could not be looked into yet" in each for each in said)


def test_a_specimen_that_the_file_calls_thick_gets_slices(tmp_path: Path) -> None:
    known = {"energy_kev": 300.0, "dk_invA": 0.05, "semiangle_mrad": 30.0, "defocus_A": 60.0}
    thick = resolve_text(drafted(scan(tmp_path / "thick.h5", thickness_nm=11.7, **known)), tmp_path).recipe
    model: Any = thick.model
    # Three within λ/α² = 0.0197 Å / (30 mrad)² = 21.9 Å.
    assert (model.slices, model.thickness_angstrom) == (16, 117.0)
    assert set(model.constraints) == {"coupling", "positive"}
    thin = resolve_text(drafted(scan(tmp_path / "thin.h5", thickness_A=6.0, **known)), tmp_path).recipe
    one: Any = thin.model
    assert one.slices == 1


@pytest.mark.parametrize("dose", [5.0, 2000.0])
def test_positions_stay_near_where_they_are_told_where_counts_are_few(dose: float, tmp_path: Path) -> None:
    row, column = (0.8 * each.ravel() for each in np.mgrid[:8, :8])
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["intensity"], file["positions_A"] = spots(64, dose), np.stack([row, column], axis=1)
        file.attrs.update(energy_eV=80000.0, dk_invA=0.039, semiangle_mrad=25.0, defocus_angstrom=60.0)
    losses = resolve_text(drafted(tmp_path / "scan.h5"), tmp_path).recipe.losses
    few = dose < 100
    assert set(losses) == ({"data", "near"} if few else {"data"})
    if few:
        assert losses["near"].sigma_angstrom == pytest.approx(0.45 * 0.8)  # type: ignore[attr-defined]


@pytest.mark.slow  # trials of the geometry of two scans
def test_what_is_written_for_scans_that_say_all_raises_no_doubt(shared_data: Path) -> None:
    for name, loss in (("mos2_sim.h5", "poisson"), ("thick_sto_sim.h5", "amplitude")):
        recipe = resolve_text(drafted(shared_data / "ptychography" / name), shared_data).recipe
        assert type(recipe.losses["data"]).__name__.lower() == loss
        said = [
            each
            for part in (recipe.data, recipe.model, *recipe.losses.values())
            for each in part.inspect(recipe, "all")
        ]
        assert not [each for each in said if isinstance(each, Problem)]


def test_a_file_with_patterns_in_the_places_of_cxi_needs_its_path_and_the_probe(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = np.ones((9, 16, 16), np.float32)
    text = drafted(tmp_path / "scan.cxi")
    assert 'use = "diffraction_cxi"' in text
    assert [line.split(" =")[0] for line in text.split("\n") if '"<' in line] == ["semiangle_mrad", "defocus_angstrom"]


def test_two_arrays_that_may_be_the_positions_are_a_question(tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.h5")
    with h5py.File(path, "a") as file:
        file["positions_corrected_A"] = np.zeros((30, 2))
    assert 'positions = "<' in drafted(path)


def test_a_scan_without_positions_is_a_raster_if_the_file_says_its_step(tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.h5", positions="gt/positions", scan_step_A=0.5)
    settings = recognised(path, None)[2]
    assert (settings["raster"], settings["positions_unit"]) == ({"step": 0.5}, "angstrom")
    assert "positions" not in settings


@pytest.mark.parametrize(
    ("first", "units", "steps", "dk"),
    [
        (0, ("A", "A", "A^-1", "A^-1"), 0.5, 0.04),  # py4DSTEM
        (1, ("[n_m]", "[n_m]", "[n_m^-1]", "[n_m^-1]"), 5.0, 0.004),  # the first version of EMD
        (0, ("pixels", "pixels", "A^-1", "mrad"), None, None),
    ],
)
def test_axes_that_lie_beside_the_patterns_say_the_steps(
    first: int, units: tuple[str, ...], steps: float | None, dk: float | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    spot = 40 * np.exp(-((np.mgrid[:16, :16] - 8) ** 2).sum(axis=0) / 18)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["root/datacube/data"] = rng.poisson(np.tile(spot, (5, 6, 1, 1))).astype(np.uint16)
        for axis, (unit, step) in enumerate(zip(units, (0.5, 0.5, 0.04, 0.04), strict=True)):
            file[f"root/datacube/dim{first + axis}"] = np.array([0.0, step])
            file[f"root/datacube/dim{first + axis}"].attrs["units"] = unit
    found = recognised(tmp_path / "scan.h5", None)[2]
    raster = {} if steps is None else {"raster": {"step": steps}, "positions_unit": "angstrom"}
    size = {} if dk is None else {"dk_per_angstrom": dk}
    assert {key: found[key] for key in ("raster", "positions_unit", "dk_per_angstrom") if key in found} == raster | size


def test_a_file_without_patterns_is_not_recognised(tmp_path: Path) -> None:
    from trainkit import RecipeError

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["table"] = np.ones((30, 2))
    with pytest.raises(RecipeError, match="recognised by no component"):
        recognised(tmp_path / "other.h5", None)


def test_archives_of_numpy_are_recognised_by_the_names_in_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", data=np.ones((9, 16, 16)), scan=np.ones((9, 2)))
    name, _, settings, *_ = recognised(tmp_path / "scan.npz", None)
    assert (name, settings["patterns"], settings["positions"]) == ("diffraction_numpy", "data", "scan")


def test_with_a_guess_of_the_probe_neither_energy_nor_aperture_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", data=np.ones((9, 16, 16)), scan=np.ones((9, 2)), probe=np.ones((16, 16), complex))
    packed = tmp_path / "scan.npz.bz2"
    packed.write_bytes(bz2.compress((tmp_path / "scan.npz").read_bytes()))
    for path in (tmp_path / "scan.npz", packed):
        text = drafted(path)
        assert 'probe = { use = "from_data" }' in text
        asked = [line.split(" =")[0] for line in text.split("\n") if '"<' in line]
        assert asked == ["zero_frequency", "positions_unit", "dk_per_angstrom"]


def test_the_simulated_scan_is_read_as_the_shipped_recipe_reads_it(shared_data: Path) -> None:
    path = shared_data / "ptychography" / "mos2_sim.h5"
    data: Any = resolve_text(drafted(path), shared_data).recipe.data
    assert (data.patterns, data.positions, data.positions_unit) == ("intensity", "positions_nominal_A", "angstrom")
    assert (data.energy_kev, data.dk_per_angstrom) == (80.0, 0.0390625)
    assert (data.semiangle_mrad, data.defocus_angstrom) == (25.0, 60.0)


def test_files_of_detectors_and_other_programs_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "scan_x2_y2.raw").write_bytes(bytes(4 * 130 * 128 * 4))
    np.save(tmp_path / "scan.npy", np.ones((4, 16, 16)))
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        file["chunks/0/data"], file["chunks/0/positions"] = np.ones((4, 16, 16)), np.zeros((4, 2))
    scipy.io.savemat(tmp_path / "scan.mat", {"patterns": np.ones((16, 16, 4)), "points": np.ones((4, 2))})
    asked = {}
    for name in ("scan_x2_y2.raw", "scan.npy", "scan.ptyd", "scan.mat"):
        text = drafted(tmp_path / name)
        asked[name] = (
            text.split("\nuse = ")[1].split("\n")[0],
            [x.split(" =")[0] for x in text.split("\n") if '"<' in x],
        )
    sizes = ["semiangle_mrad", "defocus_angstrom"]
    unknown = ["positions_unit", "dk_per_angstrom", "energy_kev", *sizes]
    assert asked["scan.ptyd"] == ('"diffraction_file"', sizes)
    assert asked["scan_x2_y2.raw"] == ('"diffraction_file"', ["zero_frequency", "raster", *unknown])
    assert asked["scan.npy"] == ('"diffraction_numpy"', ["zero_frequency", "raster", *unknown])
    assert asked["scan.mat"] == ('"diffraction_file"', ["zero_frequency", "pattern_axes", "positions", *unknown])


def images(path: Path) -> Path:
    """Write images of the near field, with all that CXI files say, but not that they are such."""
    data = SimulatedNearField(detector_propagation=NearField(focus_distance_mm=250.0))
    recording = data.read()
    scan = recording.scan
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.fft.fftshift(recording.intensities_NYX[:], axes=(1, 2))
        detector["distance"] = data.detector_distance_m
        detector["x_pixel_size"] = detector["y_pixel_size"] = 1e-6 * data.detector_pixel_um
        file["entry_1/instrument_1/source_1/wavelength"] = 1e-10 * (scan.wavelength_angstrom or 0.0)
        points_N2 = 1e-10 * (scan.pixel_size_angstrom or 0.0) * scan.positions_N2
        file["entry_1/sample_1/geometry_1/translation"] = np.pad(points_N2[:, ::-1], ((0, 0), (0, 1)))
    return path


def test_images_of_a_diverging_beam_get_a_recipe_of_the_near_field_with_its_focus(tmp_path: Path) -> None:
    text = drafted(images(tmp_path / "scan.cxi"))
    found: Any = resolve_text(text, tmp_path).recipe
    assert found.data.detector_propagation.focus_distance_mm == pytest.approx(250.0, rel=0.05)
    assert found.data.radiation == "photons"
    assert type(found.model.probe).__name__ == "MeanPattern"
    assert "images move" in text
    assert "defocus_angstrom" not in text


def test_a_recipe_of_the_far_field_for_images_is_told_of_the_near_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_fits = Advice((Problem("no geometry that was tried explains how"),), "geometry     not judged", False)
    monkeypatch.setattr(inspection, "look_at_scan", lambda *_: SimpleNamespace(advice=nothing_fits))  # it takes long
    images(tmp_path / "scan.cxi")
    text = (
        'trainkit = 1\n[run]\nepochs = 1\n[data]\nuse = "diffraction_cxi"\npath = "scan.cxi"\nsemiangle_mrad = 0.2\n'
        'defocus_angstrom = 1e5\n[model]\nuse = "ptychography"\nprobe = { use = "aperture" }\n'
        '[losses.data]\nuse = "amplitude"\n[optimizer]\nuse = "scaled_steps"\n'
    )
    recipe: Any = resolve_text(text, tmp_path).recipe
    seen = inspection.inspect_geometry(recipe.data, recipe.model.probe, recipe)
    (doubt,) = (each.message for each in seen if isinstance(each, Problem))
    found = re.search(r'detector_propagation = { use = "near_field", focus_distance_mm = ([0-9.]+) }', doubt)
    assert found is not None
    assert float(found[1]) == pytest.approx(250.0, rel=0.05)


def test_photons_in_the_far_field_are_not_taken_for_electrons(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spot = 400 * np.exp(-((np.mgrid[:32, :32] - 16) ** 2).sum(axis=0) / 18)
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = rng.poisson(np.tile(spot, (30, 1, 1)))
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 2.0, 75e-6, 75e-6
        file["entry_1/instrument_1/source_1/energy"] = 8e3 * 1.602176634e-19
        file["entry_1/sample_1/geometry_1/translation"] = 1e-7 * rng.random((30, 3))
    found: Any = resolve_text(drafted(tmp_path / "scan.cxi"), tmp_path).recipe  # with no hole to fill
    assert found.data.radiation == "photons"
    assert type(found.model.probe).__name__ == "MeanPattern"
    told = drafted(tmp_path / "scan.cxi", "data.semiangle_mrad=0.4", "data.defocus_angstrom=1e6")
    assert 'probe = { use = "aperture", trained_aberrations = ["C10"] }' in told
    with pytest.raises(RecipeError, match="far field, and these are of photons"):
        list(planned(StagedPlanner(calibrate=True), recognised(tmp_path / "scan.cxi", None)))
