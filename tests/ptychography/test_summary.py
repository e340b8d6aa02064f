"""What `check --data` says of a scan: the figures a scientist knows it by, and what looks wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch
from inspected import inspected

from trainkit import Context, DataError, Problem, bytes_in_words
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.positions import raster
from trainkit_ptychography.scans.sampling import (
    beam_offset,
    bright_radius,
    edge_share,
    mirrored_where_hidden,
    neighbour_distances,
    oversampling,
    probe_diameter,
)
from trainkit_ptychography.scans.scan import Checked, Recording, Scan, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import patterns
from trainkit_ptychography.scans.summary import doubts, known_oversampling, known_probe_diameter, summary, typical_step

pytestmark = pytest.mark.geometry_search

ROOT = Path(__file__).parents[2]

PIXEL, WAVELENGTH, SIZE = 0.4, electron_wavelength(80.0), 48
PROBE = aperture_probe((SIZE, SIZE), PIXEL, WAVELENGTH, 25.0, {"C10": (-60.0, 0.0)})
VACUUM = 1e4 * patterns(np.ones((64, 64), complex), PROBE, np.array([[32.0, 32.0]]))[0]
CONTEXT = Context(0, torch.device("cpu"), Path())
STEP = 1.25  # pixels: 0.5 Å


def sound(**changes: Any) -> Recording:
    """Return a scan of vacuum about which nothing is wrong, but for the changes."""
    points = raster((10, 8), (STEP, STEP), False)
    intensities = changes.pop("intensities", np.repeat(VACUUM[None].astype(np.float32), 80, axis=0))
    known = {"pixel_size_angstrom": PIXEL, "wavelength_angstrom": WAVELENGTH, "semiangle_mrad": 25.0}
    scan = Scan(positions_N2=points, source="a scan", positions_unit="angstrom", defocus_angstrom=60.0, **known)
    return Recording(intensities, attrs.evolve(scan, **changes))


def said(recording: Recording) -> str:
    return "\n".join(doubts(checked(recording)))


# ---- figures --------------------------------------------------------------------------------------------------------


def test_a_disc_has_its_own_diameter_wherever_it_is():
    down, right = np.ogrid[:64, :64]
    for row, column, diameter in ((32, 32, 30.0), (3, 60, 17.0)):
        away = np.hypot((down - row + 32) % 64 - 32, (right - column + 32) % 64 - 32)
        assert probe_diameter((away <= diameter / 2).astype(float)) == pytest.approx(diameter, rel=0.05)


def test_a_defocused_probe_is_as_wide_as_geometry_has_it():
    probe = aperture_probe((256, 256), 0.4, WAVELENGTH, 25.0, {"C10": (-1000.0, 0.0)})
    assert probe_diameter(np.abs(probe) ** 2) * 0.4 == pytest.approx(2 * 1000.0 * 0.025, rel=0.1)


def test_the_bright_disc_has_the_aperture_s_radius():
    in_pixels = 25e-3 * PIXEL * SIZE / WAVELENGTH
    assert bright_radius(VACUUM) == pytest.approx(in_pixels, rel=0.05)


@pytest.mark.parametrize("hidden", ["beam stop", "cross", "all"])
def test_the_bright_disc_is_as_large_behind_a_beam_stop(hidden: str) -> None:
    frequency_Y, frequency_X = (np.abs(np.fft.fftfreq(size, 1 / size)) for size in VACUUM.shape)
    counts_YX = np.hypot(frequency_Y[:, None], frequency_X) > 0.6 * bright_radius(VACUUM)
    if hidden == "cross":
        counts_YX = (frequency_Y[:, None] > 1) & (frequency_X > 1)
    if hidden == "all":
        counts_YX[:] = False
    seen_YX = mirrored_where_hidden(np.where(counts_YX, VACUUM, 0.0), counts_YX)
    if hidden == "all":
        assert not seen_YX.any()
        return
    assert bright_radius(seen_YX) == pytest.approx(bright_radius(VACUUM), rel=0.05)
    assert np.abs(beam_offset(seen_YX)).max() < 0.1


def test_the_beam_s_offset_is_seen_across_the_edges():
    for moved in ((0, 0), (3, -2), (-10, 7), (20, -20)):
        assert beam_offset(np.roll(VACUUM, moved, (0, 1))) == pytest.approx(moved, abs=1e-6)


def test_light_at_the_edge_is_measured_against_the_direct_light():
    assert edge_share(VACUUM, None) < 1e-3
    assert edge_share(np.ones((8, 8)), None) == pytest.approx(1.0)
    assert edge_share(np.ones((8, 8)), np.zeros((8, 8), bool)) == 0.0


def test_neighbours_are_found_in_any_order_of_the_scan():
    points = raster((9, 11), (2.0, 3.0), True)[np.random.default_rng(1).permutation(99)]
    np.testing.assert_allclose(neighbour_distances(points), 2.0)
    np.testing.assert_allclose(neighbour_distances(np.repeat(points, 2, axis=0)), 2.0)
    assert np.isinf(neighbour_distances(np.ones((3, 2)))).all()
    assert np.isinf(neighbour_distances(np.ones((1, 2)))).all()


def test_a_number_of_bytes_is_said_in_a_unit_that_suits_it():
    assert [bytes_in_words(size) for size in (512, 3 * 2**20, 2500 * 2**20)] == ["0.5 KiB", "3 MiB", "2.44 GiB"]


# ---- the summary ----------------------------------------------------------------------------------------------------


def test_the_summary_says_what_a_scientist_knows_a_scan_by():
    scan = checked(sound())
    lines = {line.split()[0]: line for line in summary(scan, batch_size=16)}
    assert "80 of 48 × 48" in lines["patterns"]
    assert "1e+04 a pattern" in lines["counts"]
    assert f"{1e3 * WAVELENGTH / (2 * PIXEL):.4g} mrad" in lines["detector"]
    assert "0.5 Å (1.25 pixels)" in lines["step"]
    assert "4.5 Å × 3.5 Å" in lines["scanned"]
    assert f"{1e4 / 0.5**2:.4g} counts/Å²" in lines["dose"]
    diameter = known_probe_diameter(scan)
    assert diameter is not None
    assert diameter * PIXEL == pytest.approx(2 * 60.0 * 0.025, rel=0.25)  # 2 · defocus · aperture, blurred
    assert f"{100 * (1 - STEP / diameter):.0f} %" in lines["overlap"]
    assert "(62 × 59 pixels)" in lines["object"]  # what is scanned, and a pattern's pixels around it
    assert "patterns 720 KiB" in lines["memory"]
    assert typical_step(scan) == pytest.approx(STEP)


def test_what_is_not_known_is_said_to_be_so():
    unknown = {"pixel_size_angstrom": None, "wavelength_angstrom": None, "semiangle_mrad": None}
    text = "\n".join(summary(checked(sound(**unknown, positions_unit="pixels")), 16))
    assert "not known: everything is in pixels" in text
    assert "overlap      not known: that needs a probe in the file" in text
    assert "Å" not in text


# ---- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation_fraction", [0.0, 0.01, 0.1, 0.37])
def test_a_batch_of_more_patterns_than_are_trained_on_is_said_by_check_and_by_the_run(validation_fraction, caplog):
    small = SimulatedDiffraction(scan_shape=(5, 5), detector_size=24, validation_fraction=validation_fraction)
    num_train = len(small.build(CONTEXT).train_index)
    for batch_size, is_said in ((num_train, False), (num_train + 1, True)):
        settings = attrs.evolve(small, batch_size=batch_size)
        caplog.clear()
        settings.build(CONTEXT)
        logged = [each.getMessage() for each in caplog.records if "batch_size" in each.getMessage()]
        of_check = [
            [each for each in settings.inspect(None, depth) if isinstance(each, Problem) and each.key == "batch_size"]
            for depth in ("headers", "all")
        ]
        assert [len(logged), *map(len, of_check)] == [is_said] * 3
        if is_said:
            assert f"batch_size = {num_train + 1} is more than the {num_train} patterns" in logged[0]
            assert {each.severity for (each,) in of_check} == {"warning"}


# ---- what looks wrong -----------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_sound_scan():
    assert said(sound()) == ""
    assert said(SimulatedDiffraction().read()) == ""
    assert (
        said(Recording(VACUUM[None].astype(np.float32), attrs.evolve(sound().scan, positions_N2=np.zeros((1, 2)))))
        == ""
    )


def test_the_disc_on_a_rectangular_detector_is_as_large_as_told():
    shape = (SIZE, 2 * SIZE)  # of pixels that are half as wide as they are high
    probe = aperture_probe(shape, PIXEL, WAVELENGTH, 25.0, {"C10": (-60.0, 0.0)})
    pattern = 1e4 * patterns(np.ones((128, 128), complex), probe, np.array([[64.0, 64.0]]))[0]
    recording = sound(intensities=np.repeat(pattern[None].astype(np.float32), 80, axis=0))
    assert said(recording) == ""
    text = "\n".join(summary(checked(recording), 8))
    figures, of_square = known_oversampling(checked(recording)), known_oversampling(checked(sound()))
    assert figures is not None
    assert figures == pytest.approx(of_square, rel=0.03)
    assert f"{1e3 * WAVELENGTH / PIXEL / SIZE:.4g} × {1e3 * WAVELENGTH / PIXEL / SIZE / 2:.4g} mrad a pixel" in text


def test_a_gap_through_the_disc_does_not_make_it_smaller():
    mask = np.ones((SIZE, SIZE), bool)
    mask[1:12, :] = False
    whole = np.repeat(VACUUM[None].astype(np.float32), 80, axis=0)
    assert "the bright disc" not in said(sound(intensities=whole * mask, mask_YX=mask))


WITH_EMPTY = np.repeat(VACUUM[None].astype(np.float32), 80, axis=0)
WITH_EMPTY[[7, 9]] = 0
HIDDEN = np.ones((SIZE, SIZE), bool)
HIDDEN[0, 0] = False
FAR = sound().scan.positions_N2.copy()
FAR[5] = (500.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"intensities": WITH_EMPTY}, "2 of 80 patterns are all zero, the first is pattern 7"),
        ({"mask_YX": HIDDEN}, "the mask hides the undiffracted beam"),
        (
            {"intensities": np.repeat(np.fft.fftshift(VACUUM)[None].astype("f4"), 80, axis=0)},
            'is zero_frequency the other one of "centre" and "corner"',
        ),
        (
            {"intensities": np.repeat(np.roll(VACUUM, (3, -2), (0, 1))[None].astype("f4"), 80, axis=0)},
            r"centre of mass is \(3.0, -2.0\) pixels off the zero frequency",
        ),
        ({"intensities": WITH_EMPTY + np.float32(12)}, "the detector does not cover it, or there is a background"),
        ({"semiangle_mrad": 15.0}, r"a radius of 2\d(\.\d)? mrad, but semiangle_mrad is 15"),
        ({"positions_N2": FAR}, "1 points are so far from all others"),
        ({"positions_N2": sound().scan.positions_N2 / 100}, r"the step is 0.012 pixels, .* check positions_unit"),
        ({"positions_N2": sound().scan.positions_N2 * 3}, r"the overlap is 4\d %, and below 50 %"),
        ({"positions_N2": sound().scan.positions_N2 * 30}, r"a step of 37.5 pixels with patches of 48 × 48"),
        (
            {"defocus_angstrom": 400.0},
            r"the probe is 4\d(\.\d)? pixels across and its array has 48 × 48: it does not fit",
        ),
    ],
)
def test_what_looks_wrong_is_said_with_what_to_change(changes, words):
    import re

    text = said(sound(**changes))
    assert re.search(words, text), text


def test_a_wrong_unit_is_guessed():
    angstrom_said_to_be_nm = sound(positions_N2=sound().scan.positions_N2 * 20, positions_unit="nm")
    assert 'positions_unit = "angstrom" would make it 2.5 pixels' in said(angstrom_said_to_be_nm)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"positions_N2": raster((10, 8), (1.25e-10, 1.25e-10), False)},
            r'all positions lie within 1.1e-09 pixels, so nothing was scanned; .*"m" would make it 1.25 pixels',
        ),
        (
            {"positions_N2": raster((10, 8), (125.0, 125.0), False), "positions_unit": "nm"},
            r'125 pixels apart, but a patch has 48 × 48, .*positions_unit = "angstrom" would make it 12.5 pixels',
        ),
        (
            {"positions_N2": np.concatenate([raster((79, 1), (1.0, 1.0), False), [[1e9, 1e9]]])},
            "Pattern 79 is the furthest",
        ),
        ({"semiangle_mrad": 60.0}, "an aperture of 60 mrad does not fit on the detector, which reaches to 52.2 mrad"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(DataError, match=words) as caught:
        list(doubts(checked(sound(**changes))))
    assert str(caught.value).startswith("a scan: ")


# ---- where it is said -----------------------------------------------------------------------------------------------


def write(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["data"] = np.repeat(np.roll(np.fft.fftshift(VACUUM), (3, 0), (0, 1))[None], 80, axis=0)
        file["points"] = raster((10, 8), (0.5, 0.5), False)
    return path


RECIPE = """
trainkit = 1
[run]
name = "doubtful"
epochs = 1
device = "cpu"
[data]
use = "diffraction_hdf5"
path = "scan.h5"
patterns = "data"
positions = "points"
pixel_size_angstrom = 0.4
energy_kev = 80.0
semiangle_mrad = 25.0
defocus_angstrom = 60.0
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
"""


@pytest.mark.slow
def test_check_prints_summary_and_warnings_without_torch_and_a_run_logs_the_warnings(
    tmp_path, monkeypatch, capsys, warm
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "scan.h5")
    (tmp_path / "own.toml").write_text(RECIPE)
    code, said = warm.trainkit("check", "own.toml", "--data", folder=tmp_path)
    assert code == 0, said
    assert "dose         4e+04 counts/Å²" in said
    assert "warning: data: the light's centre of mass is (3.0, 0.0) pixels off" in said
    script = (
        "import atexit, sys, trainkit.cli; sys.argv = ['trainkit', 'check', 'own.toml', '--data=headers']; "
        "atexit.register(lambda: print('torch was imported' if 'torch' in sys.modules else 'no torch')); "
        "trainkit.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "no torch" in done.stdout
    ending = start(resolve("own.toml"), Console())
    log = (ending.run.state.folder / "log.txt").read_text()
    assert log.count("warning: ") == 1
    assert "scan.h5: the light's centre of mass is (3.0, 0.0) pixels off" in log
    assert "warning: " in capsys.readouterr().out


def test_a_missing_dataset_is_one_message_of_check(tmp_path):
    write(tmp_path / "scan.h5")
    (tmp_path / "own.toml").write_text(RECIPE.replace('"points"', '"point"'))
    check = subprocess.run(
        [sys.executable, "-m", "trainkit", "check", str(tmp_path / "own.toml"), "--data"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 1
    assert 'did you mean "points"?' in check.stdout
    assert "Traceback" not in check.stdout + check.stderr


@pytest.mark.slow
def test_the_shared_scans_are_summed_up_and_nothing_is_wrong_with_them(shared_data):
    folder = shared_data / "ptychography"
    data = resolve(ROOT / "recipes" / "ptycho_mos2.toml", (f"data.path={folder / 'mos2_sim.h5'}",)).recipe.data
    lines = inspected(data)
    text = "\n".join(lines)
    assert "1024 (32 × 32) of 64 × 64 pixels" in text
    assert "0.45 Å" in text
    assert "overlap      8" in text
    dose = float(next(line for line in lines if line.startswith("dose")).split()[1])
    with h5py.File(folder / "mos2_sim.h5") as file:
        assert dose == pytest.approx(file.attrs["dose_e_per_A2"], rel=0.01)
    assert "warning" not in text
    siemens = resolve(
        ROOT / "recipes" / "ptycho_siemens.toml", (f"data.path={folder / 'siemens-star-small.npz.bz2'}",)
    ).recipe.data
    text = "\n".join(inspected(siemens))
    assert "516 of 128 × 128" in text
    assert "overlap      85 %" in text
    assert "warning" not in text


def test_a_survey_is_of_all_patterns():
    intensities = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    scan = checked(Recording(intensities, Scan(positions_N2=np.arange(10.0).reshape(5, 2), source="a scan")))
    assert isinstance(scan, Checked)
    np.testing.assert_allclose(scan.survey.totals_N, intensities.sum((1, 2), dtype=float), rtol=1e-12)
    np.testing.assert_allclose(scan.survey.mean_YX, intensities.mean(0, dtype=float), rtol=1e-6)
    assert HDF5Diffraction.requires == ("h5py",)


def test_the_two_figures_of_sampling_are_those_of_a_disc() -> None:
    down, right = np.ogrid[-32:32, -32:32]
    disc = (np.hypot(down, right) <= 20).astype(float)
    areal, magnification = oversampling(disc, step=4.0, pixel_size_angstrom=0.5, disc_radius=30.0)
    assert areal == pytest.approx(0.9 * np.pi * 20**2 / 4**2, rel=0.02)
    assert magnification == pytest.approx(30.0 / (np.sqrt(0.9) * 20 * 0.5), rel=0.02)


def test_a_scan_is_summed_up_by_its_sampling_and_too_small_a_ronchigram_is_doubted() -> None:
    assert any(line.startswith("sampling     areal oversampling") for line in summary(checked(sound()), 8))
    assert "Ronchigram magnification" not in said(sound())
    assert "the Ronchigram magnification is" in said(sound(defocus_angstrom=500.0))
