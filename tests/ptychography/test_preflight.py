"""What `check --data` says of the geometry that a recipe tells, held against scans simulated in plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import h5py
import numpy as np
import pytest
import torch

from trainkit import Problem, random_seed
from trainkit.recipe.resolve import resolve, resolve_text
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.physics.trial import Trial, try_out
from trainkit_ptychography.preflight.advice import Pair, combined, matters
from trainkit_ptychography.preflight.geometry import ORIENTATIONS, Geometry
from trainkit_ptychography.preflight.look import middle_points
from trainkit_ptychography.preflight.sample import sample
from trainkit_ptychography.preflight.search import Change, Found, Search, sureness
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.simulated_live import atoms, patterns

ROOT = Path(__file__).parents[2]
SIZE = 40
SPECIMENS: dict[str, dict[str, float]] = {
    "overfocus": {"energy": 80.0, "pixel": 0.4, "semiangle": 25.0, "defocus": -150.0, "step": 1.1, "counts": 5e4},
    "few electrons": {"energy": 300.0, "pixel": 0.25, "semiangle": 20.0, "defocus": 180.0, "step": 0.8, "counts": 3e3}
    | {"size": 32},
}


def simulated(folder: Path, *, energy: float, pixel: float, semiangle: float, defocus: float, **more: float) -> str:
    """Write a scan of 14 × 14 points and return the text of a recipe that tells its geometry rightly."""
    generator = np.random.default_rng(random_seed(int(energy)))
    wavelength, step, size = electron_wavelength(energy), more["step"] / pixel, int(more.get("size", SIZE))
    rows, columns = np.meshgrid(*(size // 2 + 3 + step * np.arange(14),) * 2, indexing="ij")
    places_N2 = np.stack([rows, columns], -1).reshape(-1, 2)
    shape = (int(places_N2.max()) + size,) * 2
    phase_KL = atoms(shape, more.get("spacing", 2.2) / pixel, 0.5 / pixel, generator)
    probe_YX = aperture_probe((size, size), pixel, wavelength, semiangle, {"C10": (-defocus, 0.0)})
    moved_N2 = places_N2 + generator.normal(0, 0.05 / pixel, places_N2.shape)
    counts_NYX = generator.poisson(
        more["counts"] * patterns(np.exp(1j * more.get("strength", 1.0) * phase_KL), probe_YX, moved_N2)
    )
    with h5py.File(folder / "scan.h5", "w") as file:
        file["dp"] = np.fft.fftshift(counts_NYX.astype(np.float32), (1, 2)).reshape(14, 14, size, size)
        file["at"] = places_N2 * pixel
    return f"""
trainkit = 1
[run]
epochs = 1
device = "cpu"
[data]
use = "diffraction_hdf5"
path = "{folder / "scan.h5"}"
patterns = "dp"
positions = "at"
energy_kev = {energy}
dk_per_angstrom = {1 / (size * pixel)}
semiangle_mrad = {semiangle}
defocus_angstrom = {defocus}
[model]
use = "single_slice_ptychography"
probe = {{ use = "aperture" }}
[losses.data]
use = "amplitude"
[groups.probe]
start_epoch = 0
"""


@pytest.fixture(scope="module", params=SPECIMENS)
def right(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe about whose geometry nothing is wrong."""
    return simulated(tmp_path_factory.mktemp("scan"), **SPECIMENS[request.param])


def said(recipe: str, *sets: str) -> tuple[list[str], list[str]]:
    """Return the doubts about the geometry, and the other lines."""
    resolved = resolve_text(recipe, Path.cwd(), sets).recipe
    seen = list(resolved.model.inspect(resolved, "all"))
    doubts = [each.message for each in seen if isinstance(each, Problem)]
    return doubts, [each for each in seen if isinstance(each, str)]


def setting(recipe: str, name: str) -> float:
    return float(recipe.partition(f"{name} = ")[2].split("\n")[0])


def test_nothing_is_doubted_if_the_recipe_is_right(right: str) -> None:
    doubts, lines = said(right)
    assert not doubts
    assert lines[0].startswith("geometry     as told")


def test_the_wrong_sign_of_the_defocus_is_named_with_the_line_to_paste(right: str) -> None:
    defocus = setting(right, "defocus_angstrom")
    (doubt,), _ = said(right, f"data.defocus_angstrom={-defocus}")
    assert "the patterns contradict the sign of the defocus" in doubt
    assert abs(setting(doubt.replace(". The", "\n"), "[data] defocus_angstrom") / defocus - 1) < 0.05
    assert 'The detector turned by 180° (pattern_flip = ["rows", "columns"])' in doubt
    assert "phases are then positive" in doubt


@pytest.mark.parametrize(
    ("right", "wrong", "paste"),
    [
        ("overfocus", 'data.positions_order="column_row"', '[data] positions_order = "row_column"'),
        ("few electrons", 'data.positions_flip=["rows"]', "[data] positions_flip = []"),
        ("overfocus", 'data.pattern_flip=["columns"]', '[data] positions_flip = ["columns"]'),
        ("overfocus", "data.positions_rotation_deg=90.0", "[data] positions_rotation_deg = 0"),
        ("few electrons", "data.positions_rotation_deg=30.0", "[data] positions_rotation_deg = 0"),
    ],
    indirect=["right"],
    scope="module",
)
def test_a_scan_that_lies_otherwise_is_named(right: str, wrong: str, paste: str) -> None:
    (doubt,), _ = said(right, wrong)
    assert "the patterns contradict how the scan lies against the detector" in doubt
    assert paste in doubt
    if "rotation" not in wrong:
        assert doubt.count(" = ") - doubt.count("(pattern_flip = ") == 1  # one line to paste


@pytest.mark.parametrize(
    ("right", "unit"), [("overfocus", "pixels"), ("few electrons", "nm")], indirect=["right"], scope="module"
)
def test_positions_in_another_unit_are_named(right: str, unit: str) -> None:
    (doubt,), _ = said(right, f'data.positions_unit="{unit}"')
    assert 'paste [data] positions_unit = "angstrom"' in doubt


@pytest.mark.slow
def test_a_step_that_is_told_much_too_large_is_named_although_a_larger_defocus_hides_it(right: str) -> None:
    (doubt,), _ = said(right, "data.positions_scale=1.25")
    assert "times as far apart as told" in doubt
    assert (
        abs(setting(doubt.replace(";", "\n"), "paste [data] positions_scale") - 1) < 0.11
    )  # told about as well as that


@pytest.mark.slow
def test_the_pair_that_no_loss_tells_apart_is_named_by_its_negative_phases(right: str) -> None:
    defocus = setting(right, "defocus_angstrom")
    (doubt,), _ = said(right, 'data.pattern_flip=["rows", "columns"]', f"data.defocus_angstrom={-defocus}")
    assert "the patterns fit as told, but with negative phases" in doubt
    assert 'positions_flip = ["rows", "columns"]' in doubt


@pytest.mark.slow
def test_a_defocus_is_doubted_only_where_a_trained_probe_does_not_repair_it(right: str) -> None:
    defocus, semiangle, wavelength = (
        setting(right, "defocus_angstrom"),
        setting(right, "semiangle_mrad"),
        electron_wavelength(setting(right, "energy_kev")),
    )
    radian = wavelength / (np.pi * (1e-3 * semiangle) ** 2)  # at the edge of the aperture; 21 Å at 80 keV and 25 mrad
    assert not said(right, f"data.defocus_angstrom={defocus + 1.6 * radian}")[0]
    (doubt,), _ = said(right, f"data.defocus_angstrom={defocus + 4 * radian}")
    assert "fits clearly better" in doubt
    assert abs(setting(doubt.replace(";", "\n"), "defocus_angstrom") - defocus) < radian
    frozen = right.replace("start_epoch = 0", "")
    assert said(frozen, f"data.defocus_angstrom={defocus + 1.6 * radian}")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "factor"), [("overfocus", 0.8), ("few electrons", 1.2)], indirect=["right"], scope="module"
)
def test_a_wrong_detector_step_is_told_from_a_wrong_angle_of_the_aperture(right: str, factor: float) -> None:
    step, angle = setting(right, "dk_per_angstrom"), setting(right, "semiangle_mrad")
    (doubt,), _ = said(right, f"data.dk_per_angstrom={step * factor}")
    assert abs(setting(doubt.replace(";", "\n"), "paste [data] dk_per_angstrom") / step - 1) < 0.03
    (doubt,), _ = said(right, f"data.semiangle_mrad={angle * factor}")
    assert abs(setting(doubt.replace(";", "\n"), "paste [data] semiangle_mrad") / angle - 1) < 0.03


@pytest.mark.slow
def test_an_empty_specimen_tells_nothing_and_raises_no_doubt(tmp_path: Path) -> None:
    recipe = simulated(tmp_path, **SPECIMENS["few electrons"] | {"strength": 0.0, "defocus": 90.0, "size": 24})
    doubts, lines = said(recipe, "data.defocus_angstrom=-90.0")  # the wrong sign
    assert not doubts
    assert "hardly differ from those of an empty object" in lines[0]


@pytest.mark.slow
def test_a_detector_that_is_lit_to_its_corners_is_no_mistake_of_the_recipe(tmp_path: Path) -> None:
    recipe = simulated(tmp_path, **SPECIMENS["few electrons"], strength=0.0)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["dp"][:] = np.random.default_rng(1).poisson(20.0, file["dp"].shape)
    doubts, lines = said(recipe)
    assert not doubts
    assert "hardly differ from those of an empty object" in lines[0]


def test_headers_alone_are_read_in_no_time_and_say_so() -> None:
    resolved = resolve(ROOT / "recipes" / "ptycho_staged.toml").recipe
    (line,) = resolved.model.inspect(resolved, "headers")
    assert line == "geometry     not compared with the patterns; check --data does that"


@pytest.mark.parametrize("angle", [-45.0, 0.0, 30.0, 60.0, 90.0, 130.0, -170.0])
def test_a_folded_geometry_lays_points_where_the_unfolded_one_does(angle: float) -> None:
    points_N2 = np.random.default_rng(0).normal(size=(5, 2))
    for swapped, flips in ORIENTATIONS:
        whole = Geometry(swapped=swapped, flips=flips, rotation_deg=angle)
        folded = whole.folded()
        assert abs(folded.rotation_deg) <= 45
        there, here = (oriented(points_N2, each.swapped, each.flips, each.rotation_deg) for each in (whole, folded))
        np.testing.assert_allclose(there, here, atol=1e-12)


def test_the_settings_to_paste_do_what_the_told_ones_and_the_change_do_together() -> None:
    points_N2 = np.random.default_rng(0).normal(size=(5, 2))
    for (swapped, flips), (told_swapped, told_flips) in product(ORIENTATIONS, repeat=2):
        told = (told_swapped, frozenset(told_flips), 20.0)
        change = Geometry(swapped=swapped, flips=flips, rotation_deg=-33.0)
        together_N2 = oriented(oriented(points_N2, *told), swapped, flips, -33.0)
        np.testing.assert_allclose(oriented(points_N2, *combined(told, change)), together_N2, atol=1e-12)


def test_a_detector_turned_by_180_degrees_with_the_conjugated_probe_fits_equally() -> None:
    generator = np.random.default_rng(3)
    points_N2 = generator.uniform(0, 12, (40, 2))
    probe_YX = aperture_probe((24, 24), 0.4, electron_wavelength(80.0), 25.0, {"C10": (-60.0, 0.0), "C12": (20.0, 0.7)})
    places_N2 = points_N2 + 16
    counts_NYX = patterns(np.exp(1j * atoms((48, 48), 5, 1.2, generator)), probe_YX, places_N2)
    turned_NYX = counts_NYX[:, -np.arange(24) % 24][:, :, -np.arange(24) % 24]
    amplitudes: Callable[[Any], torch.Tensor] = lambda each: torch.from_numpy(np.sqrt(each)).float()  # noqa: E731
    one = try_out(amplitudes(counts_NYX), None, probe_YX[None], points_N2)
    other = try_out(amplitudes(turned_NYX), None, probe_YX[None].conj(), points_N2)
    np.testing.assert_allclose(one.misfit_T, other.misfit_T, rtol=1e-3)
    assert one.phase_skewness == pytest.approx(-other.phase_skewness, rel=1e-2)
    assert one.misfit < 0.6 * one.empty


def test_a_search_that_ends_at_the_pair_of_what_was_told_finds_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = resolve_text(simulated(tmp_path, **SPECIMENS["overfocus"]), tmp_path).recipe
    recording = cast(Any, recipe.data).read()
    part = sample(recording, middle_points(recording, 64), cast(Any, recipe.model).probe, 0, 0.0)
    told, both = SPECIMENS["overfocus"]["defocus"], ("rows", "columns")
    paired = Geometry(flips=both, defocus_change_angstrom=-2 * told)
    monkeypatch.setattr(Search, "_searched", lambda search, best: paired)
    found = Search(part)()
    assert (found.geometry, found.changes) == (Geometry(), ())
    other = Geometry(flips=both, defocus_change_angstrom=-told)  # of no defocus, so it is told from its own pair only
    monkeypatch.setattr(Search, "_searched", lambda search, best: other)
    assert {each.name for each in Search(part)().changes} == {"defocus_change_angstrom"}


def chosen_for(phase_KL: np.ndarray[Any, Any]) -> Pair:
    """Return which of the pair is chosen for a scan of a specimen, whose geometry is as it is told."""
    points_N2 = np.stack(np.meshgrid(*(np.arange(14.0),) * 2, indexing="ij"), -1).reshape(-1, 2)
    probe_YX = aperture_probe((24, 24), 0.4, electron_wavelength(80.0), 25.0, {"C10": (-60.0, 0.0)})
    counts_NYX = patterns(np.exp(1j * phase_KL), probe_YX, points_N2 + 16)
    trial = try_out(torch.from_numpy(np.sqrt(counts_NYX)).float(), None, probe_YX[None], points_N2)
    assert trial.misfit < 0.6 * trial.empty
    scan = SimpleNamespace(wavelength_angstrom=electron_wavelength(80.0))
    sample = SimpleNamespace(scan=scan, told_defocus=lambda: 60.0)
    return Pair.choose(Found(trial, Geometry(), trial, (), 10.0), cast(Any, sample))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_phases_choose_between_the_pair_where_they_are_those_of_atoms(sign: float) -> None:
    chosen = chosen_for(sign * atoms((48, 48), 5, 1.2, np.random.default_rng(3)))
    assert chosen.is_decided
    assert chosen.both_reversed == (sign < 0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_phases_do_not_choose_where_holes_of_a_honeycomb_look_as_atoms_do(sign: float) -> None:
    rows_K1, columns_1L = np.ogrid[:48, :48]
    turns = 2 * np.pi / 5.5 * np.array([[np.cos(each), np.sin(each)] for each in 2 * np.pi / 3 * np.arange(3)])
    phase_KL = 0.1 * sum(np.cos(row * rows_K1 + column * columns_1L) for row, column in turns)  # three waves
    chosen = chosen_for(sign * phase_KL)
    assert not chosen.is_decided
    assert not chosen.both_reversed


def test_a_trial_leaves_the_global_random_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    try_out(torch.rand(30, 8, 8, generator=torch.Generator()), None, np.ones((1, 8, 8)), np.zeros((30, 2)))
    assert torch.equal(before, torch.get_rng_state())


def test_masked_pixels_have_no_say() -> None:
    generator = np.random.default_rng(4)
    points_N2 = generator.uniform(0, 12, (40, 2))
    probe_YX = aperture_probe((24, 24), 0.4, electron_wavelength(80.0), 25.0, {"C10": (-60.0, 0.0)})
    counts_NYX = patterns(np.exp(1j * atoms((48, 48), 5, 1.2, generator)), probe_YX, points_N2 + 16)
    mask_NYX = torch.ones(40, 24, 24, dtype=torch.bool)
    mask_NYX[:30, 3, 5] = False  # not in all patterns alike
    hot_NYX = counts_NYX.copy()
    hot_NYX[:30, 3, 5] = 100.0
    one, other = (
        try_out(torch.from_numpy(np.sqrt(each)).float(), mask_NYX, probe_YX[None], points_N2)
        for each in (counts_NYX, hot_NYX)
    )
    np.testing.assert_allclose(one.misfit_T, other.misfit_T, rtol=1e-3)


def test_a_smaller_step_that_nearly_all_patterns_fit_better_contradicts_the_one_that_is_told() -> None:
    generator = np.random.default_rng(4)
    misfit = np.full(64, 1.0)
    few_differ_much = 0.02 * np.where(np.arange(64) < 10, 15.0, 1.0) * generator.uniform(0.7, 1.3, 64)
    a_third_disagrees = np.where(np.arange(64) % 3 == 0, -0.2, 1.0) * generator.uniform(0.1, 0.7, 64)
    part = cast(Any, SimpleNamespace(depth_angstrom=0.0))
    for better, contradicts in ((few_differ_much, True), (a_third_disagrees - 0.02, False)):
        told, best = (Trial(each, misfit + 4.0, 0.0) for each in (misfit, misfit - better))
        change = Change("step_factor", told, told.gain / best.gain, sureness(told, best) if contradicts else 5.9)
        assert 4.5 < change.sureness < 6
        found = Found(told, Geometry(step_factor=0.8), best, (change,), 20.0)
        assert matters(change, found, part, True) is contradicts
        larger = attrs.evolve(found, geometry=Geometry(step_factor=1.25))
        assert not matters(change, larger, part, True)  # misfits lean towards larger steps
        assert not matters(change, found, cast(Any, SimpleNamespace(depth_angstrom=60.0)), True)
