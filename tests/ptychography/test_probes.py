"""Probes: modes that are made from one guess, vacuum patterns, and aberrations of all orders."""

from __future__ import annotations

from math import radians
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem
from trainkit_ptychography.physics.optics import aperture_probe, scattering_angles
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.from_data import ProbeFromData
from trainkit_ptychography.probes.from_file import ProbeFromFile
from trainkit_ptychography.probes.from_file_live import inspect_probe
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.probes.mode_making import with_modes
from trainkit_ptychography.probes.vacuum import VacuumProbe
from trainkit_ptychography.probes.vacuum_live import inspect_vacuum, vacuum_probe
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.scan import Recording, Scan, checked

PIXEL, WAVELENGTH, SEMIANGLE, SHAPE = 0.4, 0.0418, 25.0, (32, 30)
SCAN = Scan(
    positions_N2=np.argwhere(np.ones((3, 3))) * 3.0,
    source="made up",
    pixel_size_angstrom=PIXEL,
    wavelength_angstrom=WAVELENGTH,
    semiangle_mrad=SEMIANGLE,
    prepare=Prepare(),
)


def lens(**coefficients: float) -> np.ndarray:
    return aperture_probe(SHAPE, PIXEL, WAVELENGTH, SEMIANGLE, {name: (c, 0.0) for name, c in coefficients.items()})


def far_field(probe_YX: np.ndarray) -> np.ndarray:
    """The probe's pattern, zero frequency at [0, 0]."""
    return np.abs(np.fft.fft2(probe_YX)) ** 2


def scanned(pattern_YX: np.ndarray, **known: object) -> Recording:
    return Recording(np.repeat(pattern_YX[None], 9, 0).astype(np.float32), attrs.evolve(SCAN, **known))


# ---- modes from one guess -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["aperture", "data", "file"])
def test_every_kind_of_probe_makes_modes_of_the_powers_asked_for_and_begins_with_its_guess(kind, tmp_path):
    guess_YX = lens(C10=-80.0)
    np.save(tmp_path / "guess.npy", guess_YX)
    recording = scanned(far_field(guess_YX), probe_MYX=guess_YX[None])
    data = LiveDiffraction(checked(recording), Context(0, torch.device("cpu"), Path()), 4, 0.0)
    settings = {"modes": 4, "powers": (0.2, 0.1, 0.05)}
    probe = {
        "aperture": Aperture(defocus_angstrom=80.0, **settings),
        "data": ProbeFromData(**settings),
        "file": ProbeFromFile(path=tmp_path / "guess.npy", **settings),
    }[kind]
    modes_MS = probe.build(data).reshape(4, -1)
    gram_MM = modes_MS @ modes_MS.conj().T
    np.testing.assert_allclose(gram_MM, np.diag([0.65, 0.2, 0.1, 0.05]), atol=1e-12)  # orthogonal, and of these powers
    assert abs(np.vdot(modes_MS[0], guess_YX.ravel())) == pytest.approx(np.sqrt(0.65), rel=1e-12)


def test_modes_that_are_made_keep_within_the_aperture_of_the_guess():
    guess_YX = lens(C10=-80.0, C30=1e5)
    dark_YX = far_field(guess_YX) < 1e-12 * far_field(guess_YX).max()
    assert dark_YX.sum() > 100
    for mode_YX in with_modes(guess_YX[None], 6, None):
        assert far_field(mode_YX)[dark_YX].max() < 1e-12 * far_field(mode_YX).max()


def test_three_modes_hold_nearly_all_of_a_probe_that_a_source_of_some_size_moves_about():
    """The incoherent sum of shifted probes is what partial coherence is; the modes that are made should span it."""
    guess_YX = lens(C10=-80.0)
    frequency_Y, frequency_X = (np.fft.fftfreq(size) for size in SHAPE)
    copies = [
        np.fft.ifft2(np.fft.fft2(guess_YX) * np.exp(-2j * np.pi * (down * frequency_Y[:, None] + right * frequency_X)))
        for down in (-0.5, 0.0, 0.5)
        for right in (-0.5, 0.0, 0.5)
    ]
    copies_KS = np.stack(copies).reshape(9, -1)
    modes_MS = with_modes(guess_YX[None], 3, None).reshape(3, -1)
    modes_MS /= np.linalg.norm(modes_MS, axis=1, keepdims=True)
    held = (np.abs(copies_KS @ modes_MS.conj().T) ** 2).sum() / (np.abs(copies_KS) ** 2).sum()
    best = (np.linalg.svd(copies_KS, compute_uv=False)[:3] ** 2).sum() / (np.abs(copies_KS) ** 2).sum()
    assert held > 1 - 1.5 * (1 - best)


def test_modes_of_the_guess_keep_their_proportions_and_further_ones_are_orthogonal_to_all_of_them():
    known_MYX = with_modes(lens(C10=-80.0)[None], 2, (0.25,)) * 7.0
    modes_MS = with_modes(known_MYX, 4, None).reshape(4, -1)
    gram_MM = modes_MS @ modes_MS.conj().T
    np.testing.assert_allclose(gram_MM, np.diag([0.96 * 0.75, 0.96 * 0.25, 0.02, 0.02]), atol=1e-12)
    assert np.array_equal(with_modes(known_MYX, None, None), known_MYX)
    assert np.array_equal(with_modes(known_MYX, 1, None), known_MYX[:1])


def test_a_mode_without_power_is_made_anew_or_refused_because_its_gradient_stays_zero():
    known_MYX = np.stack([lens(C10=-80.0), np.zeros(SHAPE)])
    with pytest.raises(DataError, match=r"modes 1 of 2 .* never change; say model\.probe\.modes = 2"):
        with_modes(known_MYX, None, None)
    powers = (np.abs(with_modes(known_MYX, 2, None)) ** 2).sum((1, 2))
    np.testing.assert_allclose(powers, [0.98, 0.02])


def test_a_spectrum_of_a_few_pixels_makes_only_so_many_modes():
    with pytest.raises(DataError, match=r"4 modes cannot be made .* more than 1: lower model\.probe\.modes"):
        with_modes(np.ones((1, 8, 8), complex), 4, None)


def test_a_guess_that_is_cut_in_four_or_has_all_its_power_in_one_mode_is_doubted(tmp_path):
    def said(modes_MYX: np.ndarray, **settings: str) -> list[str]:
        np.save(tmp_path / "p.npy", modes_MYX)
        seen = inspect_probe(ProbeFromFile(path=tmp_path / "p.npy", **settings))
        return [each.message for each in seen if isinstance(each, Problem)]

    right_MYX = with_modes(lens(C10=-80.0)[None], 3, None)
    cornered_MYX = np.fft.ifftshift(right_MYX, axes=(1, 2))
    assert said(right_MYX) == said(cornered_MYX, centre="corner") == []
    assert 'centre = "corner"' in said(cornered_MYX)[0]
    (weak,) = said(with_modes(right_MYX, 3, (0.1, 1e-5)))
    assert "2 of 3 modes (the others have 1e-05)" in weak


def test_powers_without_modes_are_refused():
    (problem,) = ProbeFromData(powers=(0.1,)).problems(None)
    assert isinstance(problem, Problem)
    assert "modes is not said" in problem.message


# ---- aberrations ----------------------------------------------------------------------------------------------------


def test_every_aberration_that_abtem_names_is_a_setting_and_enters_as_its_formula_says():
    """Eq. 2.22 of Kirkland, term by term as abTEM writes it, in float64."""
    given = {
        **{"C10": -60.0, "C12": 20.0, "phi12": 15.0, "C21": 900.0, "phi21": 40.0, "C23": 700.0, "phi23": -20.0},
        **{"C30": 3e4, "C32": 2e4, "phi32": 70.0, "C34": 1e4, "phi34": 10.0},
        **{"C41": 1e6, "phi41": 33.0, "C43": 2e6, "phi43": -50.0, "C45": 1e6, "phi45": 5.0},
        **{"C50": 4e7, "C52": 3e7, "phi52": 80.0, "C54": 2e7, "phi54": 21.0, "C56": 1e7, "phi56": 11.0},
    }
    keys = {f"{name}_deg" if name.startswith("phi") else f"{name}_angstrom": value for name, value in given.items()}
    assert set(keys) <= {field.name for field in attrs.fields(Aperture)}
    alpha, phi = scattering_angles(SHAPE, PIXEL, WAVELENGTH)
    p = {name: radians(value) if name.startswith("phi") else value for name, value in given.items()}
    path = 1 / 2 * alpha**2 * (p["C10"] + p["C12"] * np.cos(2 * (phi - p["phi12"])))
    path += 1 / 3 * alpha**3 * (p["C21"] * np.cos(phi - p["phi21"]) + p["C23"] * np.cos(3 * (phi - p["phi23"])))
    third = p["C30"] + p["C32"] * np.cos(2 * (phi - p["phi32"])) + p["C34"] * np.cos(4 * (phi - p["phi34"]))
    fourth = p["C41"] * np.cos(phi - p["phi41"]) + p["C43"] * np.cos(3 * (phi - p["phi43"]))
    fourth += p["C45"] * np.cos(5 * (phi - p["phi45"]))
    fifth = p["C50"] + p["C52"] * np.cos(2 * (phi - p["phi52"])) + p["C54"] * np.cos(4 * (phi - p["phi54"]))
    fifth += p["C56"] * np.cos(6 * (phi - p["phi56"]))
    path += 1 / 4 * alpha**4 * third + 1 / 5 * alpha**5 * fourth + 1 / 6 * alpha**6 * fifth
    recording = scanned(far_field(lens(C10=-60.0)))
    data = LiveDiffraction(checked(recording), Context(0, torch.device("cpu"), Path()), 4, 0.0)
    (probe_YX,) = Aperture(**keys).build(data)
    spectrum_YX = np.fft.fft2(np.fft.ifftshift(probe_YX))
    spectrum_YX /= spectrum_YX[0, 0]
    inside = np.abs(spectrum_YX) > 0.5
    expected_YX = np.exp(-2j * np.pi / WAVELENGTH * path)
    np.testing.assert_allclose(spectrum_YX[inside] / np.abs(spectrum_YX[inside]), expected_YX[inside], atol=1e-9)


def test_other_names_mean_the_same_and_two_names_for_one_aberration_are_refused():
    plain = Aperture(C12_angstrom=5.0, phi12_deg=10.0, C21_angstrom=6.0, phi21_deg=20.0, C30_angstrom=7.0)
    named = Aperture(
        astigmatism_angstrom=5.0, astigmatism_angle_deg=10.0, coma_angstrom=6.0, coma_angle_deg=20.0, Cs_angstrom=7.0
    )
    assert named.coefficients(0.0) == plain.coefficients(0.0)
    assert list(named.problems(None)) == []
    assert Aperture(C10_angstrom=-70.0).told_defocus(SCAN) == Aperture(defocus_angstrom=70.0).told_defocus(SCAN) == 70.0
    for probe, key in (
        (Aperture(Cs_angstrom=1.0, C30_angstrom=1.0), "Cs_angstrom"),
        (Aperture(C10_angstrom=1.0, defocus_angstrom=1.0), "C10_angstrom"),
    ):
        (problem,) = probe.problems(None)
        assert isinstance(problem, Problem)
        assert problem.key == key


def test_a_direction_without_a_size_is_pointed_out():
    (problem,) = Aperture(phi34_deg=10.0).problems(None)
    assert isinstance(problem, Problem)
    assert problem.severity == "warning"


# ---- a measured vacuum pattern --------------------------------------------------------------------------------------


def vacuum(folder: Path, pattern_VU: np.ndarray, **settings: object) -> VacuumProbe:
    """Settings of a probe from this pattern, which has its zero frequency in the middle."""
    np.save(folder / "vacuum.npy", pattern_VU)
    return VacuumProbe(path=folder / "vacuum.npy", **settings)


def test_a_vacuum_pattern_and_the_defocus_give_the_probe_itself(tmp_path):
    true_YX = lens(C10=-60.0, C30=1e5)
    pattern_YX = np.fft.fftshift(far_field(true_YX))
    settings = vacuum(tmp_path, pattern_YX, defocus_angstrom=60.0, Cs_angstrom=1e5, dark_below=0.0)
    (probe_YX,) = vacuum_probe(settings, SCAN, SHAPE)
    np.testing.assert_allclose(probe_YX, true_YX, atol=1e-7)  # patterns are kept in single precision


def test_noise_outside_of_the_disc_does_not_become_part_of_the_probe(tmp_path):
    true_YX = lens(C10=-60.0)
    counts_YX = 1e4 * far_field(true_YX) / far_field(true_YX).max() + 30.0
    noisy_YX = np.random.default_rng(1).poisson(np.fft.fftshift(counts_YX)).astype(np.uint16)
    kept, cleaned = (
        vacuum_probe(vacuum(tmp_path, noisy_YX, defocus_angstrom=60.0, dark_below=level), SCAN, SHAPE)[0]
        for level in (0.0, 0.05)
    )
    overlap = [abs(np.vdot(true_YX, each)) for each in (kept, cleaned)]
    assert overlap[1] > 0.997
    assert overlap[1] > overlap[0]


def test_a_pattern_that_is_off_centre_flipped_and_prepared_as_those_of_the_scan(tmp_path):
    """Recorded with 2 × 2 times the pixels, its beam elsewhere, upside down; the scan's patterns were binned."""
    true_YX = lens(C10=-60.0, C12=40.0)
    recorded_VU = np.kron(np.fft.fftshift(far_field(true_YX)), np.full((2, 2), 0.25))
    row, column = 2 * (SHAPE[0] // 2), 2 * (SHAPE[1] // 2)
    moved_VU = np.roll(recorded_VU, (3, -2), axis=(0, 1))
    scan = attrs.evolve(SCAN, prepare=Prepare(bin=2))
    place = [row + 3, column - 2]
    options = {"defocus_angstrom": 60.0, "C12_angstrom": 40.0, "dark_below": 0.0, "zero_frequency": tuple(place)}
    (probe_YX,) = vacuum_probe(vacuum(tmp_path, moved_VU, **options), scan, SHAPE)
    np.testing.assert_allclose(probe_YX, true_YX, atol=1e-6)
    already = vacuum(tmp_path, np.fft.fftshift(far_field(true_YX)), **{**options, "zero_frequency": "centre"})
    np.testing.assert_allclose(vacuum_probe(already, scan, SHAPE)[0], true_YX, atol=1e-7)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (np.ones((40, 30)), r"has 40 × 30 pixels, and the scan's patterns have 32 × 30 .* same camera"),
        (np.ones(SHAPE, complex), "must be a pattern of real numbers"),
        (np.zeros(SHAPE), "holds no light"),
    ],
)
def test_a_pattern_of_another_camera_is_refused(pattern, said, tmp_path):
    with pytest.raises(DataError, match=said):
        vacuum_probe(vacuum(tmp_path, pattern), SCAN, SHAPE)


def test_what_would_be_silently_wrong_with_a_vacuum_pattern_is_doubted(tmp_path):
    pattern_YX = far_field(lens(C10=-60.0))
    recording = scanned(pattern_YX)

    def said(vacuum_YX: np.ndarray, of: Recording = recording, **settings: object) -> list[str]:
        seen = inspect_vacuum(vacuum(tmp_path, np.fft.fftshift(vacuum_YX), **settings), of)
        return [each.message for each in seen if isinstance(each, Problem)]

    assert said(pattern_YX) == []
    longer_YX = far_field(aperture_probe(SHAPE, PIXEL, WAVELENGTH, 15.0, {}))
    assert "another camera length or aperture" in said(longer_YX)[0]
    stopped_YX = pattern_YX.copy()
    stopped_YX[:2, :2] = 0
    stopped_YX[-1:, :2] = 0
    assert "beam stop" in said(stopped_YX)[0]
    hidden = scanned(stopped_YX, mask_YX=stopped_YX > 0)
    assert "beam stop" in said(stopped_YX, hidden)[0]
    assert "pixels off" in said(np.roll(pattern_YX, 4, axis=0), zero_frequency="centre")[0]
    assert any("bright to the edge" in each for each in said(pattern_YX + 0.3 * pattern_YX.max()))
    told = scanned(pattern_YX, semiangle_mrad=35.0)
    assert "semiangle_mrad is 35" in said(pattern_YX, told)[0]
    notched_YX = pattern_YX.copy()  # an aperture that is cut on one side, which the patterns of the scan show as well
    notched_YX[1:7, -3:], upside_down = 0, -np.arange(SHAPE[0]) % SHAPE[0]
    noise_YX = 0.1 * pattern_YX.max() * np.random.default_rng(1).random(SHAPE)
    assert not any("turned" in each for each in said(notched_YX, scanned(notched_YX + noise_YX)))
    assert not any("turned" in each for each in said(pattern_YX, scanned(notched_YX + noise_YX)))
    (wrong,) = (each for each in said(notched_YX[upside_down], scanned(notched_YX + noise_YX)) if "turned" in each)
    assert 'say flip = ["rows"]' in wrong
    assert said(notched_YX[upside_down], scanned(notched_YX), flip=("rows",)) == said(notched_YX, scanned(notched_YX))


def test_a_real_array_where_a_probe_is_expected_names_the_probe_for_vacuum_patterns(tmp_path):
    np.save(tmp_path / "v.npy", np.ones(SHAPE))
    with pytest.raises(DataError, match='use = "vacuum"'):
        list(inspect_probe(ProbeFromFile(path=tmp_path / "v.npy")))


def test_all_kinds_of_probes_share_the_settings_of_modes():
    for kind in (Aperture, ProbeFromData, ProbeFromFile, VacuumProbe):
        assert issubclass(kind, Probe)
        assert attrs.fields_dict(kind)["modes"].default is None
