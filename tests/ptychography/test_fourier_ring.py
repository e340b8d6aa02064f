"""Fourier ring correlation, against a loop over Fourier pixels, and where its value is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trainkit import DataError, RecipeError
from trainkit.console import Console
from trainkit.engine.halves import compare_halves
from trainkit.engine.start import ExitCode, no_report, start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.physics.fourier_ring import (
    RingCorrelation,
    against_truth,
    aligned,
    crossing,
    ring_correlation,
    tapered,
    threshold,
)
from trainkit_ptychography.resolution.fourier_ring import FourierRing
from trainkit_ptychography.resolution.fourier_ring_live import Half, doubts, measure, misfit_in_words, read_half

GENERATOR = np.random.default_rng(5)


def noise(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape) + 1j * GENERATOR.normal(size=shape)


def smooth(shape: tuple[int, int], cutoff: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    field = np.fft.ifft2(np.fft.fft2(GENERATOR.normal(size=shape)) * np.exp(-((frequency / cutoff) ** 2))).real
    return field / field.std()


@pytest.mark.parametrize("shape", [(20, 20), (17, 24)])
def test_it_is_what_a_loop_over_fourier_pixels_finds(shape):
    one, other, window = noise(*shape), noise(*shape), tapered(shape)
    found = ring_correlation(one, other, window)
    spectra = [np.fft.fft2(window * (each - np.average(each, weights=window))) for each in (one, other)]
    sums = np.zeros((3, 40))
    numbers = np.zeros(40)
    for row in range(shape[0]):
        for column in range(shape[1]):
            signed = [
                place - size if place > size / 2 else place for place, size in zip((row, column), shape, strict=True)
            ]
            ring = round(min(shape) * np.sqrt((signed[0] / shape[0]) ** 2 + (signed[1] / shape[1]) ** 2))
            a, b = spectra[0][row, column], spectra[1][row, column]
            sums[:, ring] += (a * b.conjugate()).real, abs(a) ** 2, abs(b) ** 2
            numbers[ring] += 1
    rings = np.arange(1, min(shape) // 2 + 1)
    np.testing.assert_allclose(found.frequency_R, rings / min(shape))
    np.testing.assert_allclose(found.correlation_R, sums[0, rings] / np.sqrt(sums[1, rings] * sums[2, rings]))
    share = (window**2).sum() ** 2 / (window.size * (window**4).sum())
    np.testing.assert_allclose(found.number_R, 0.5 * share * numbers[rings])


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0, 4.0])
def test_of_white_signal_in_white_noise_it_is_the_ratio_over_one_more(ratio):
    found = []
    for _ in range(8):
        signal = np.sqrt(ratio) * noise(64, 64)
        found.append(ring_correlation(signal + noise(64, 64), signal + noise(64, 64), tapered((64, 64))).correlation_R)
    assert np.mean(np.array(found)[:, 6:]) == pytest.approx(ratio / (1 + ratio), abs=0.02)


def test_an_image_agrees_with_itself_everywhere_whatever_is_added_or_multiplied():
    image, window = noise(32, 30), tapered((32, 30))
    np.testing.assert_allclose(ring_correlation(image, 3.0 * image + 7.0 - 2j, window).correlation_R, 1.0)
    np.testing.assert_allclose(ring_correlation(image, -image, window).correlation_R, -1.0)


@pytest.mark.parametrize(
    ("bits", "a", "b", "c", "d"),
    [(1.0, 0.5, 2.4142, 1.5, 1.4142), (0.5, 0.2071, 1.9102, 1.2071, 0.9102)],
)
def test_thresholds_have_the_constants_of_van_heel_and_schatz(bits, a, b, c, d):
    number = np.array([1.0, 4.0, 30.0, 1000.0])
    printed = (a + b / np.sqrt(number)) / (c + d / np.sqrt(number))
    np.testing.assert_allclose(threshold(number, bits), printed, atol=1e-4)


def test_noise_alone_seldom_passes_the_threshold():
    window = tapered((48, 48))
    passed = []
    for _ in range(30):
        found = ring_correlation(noise(48, 48), noise(48, 48), window)
        passed.append(found.correlation_R > threshold(found.number_R, 0.5))
    assert np.mean(passed) < 0.01


def test_what_is_expected_with_the_truth_follows_from_the_signal_to_noise_ratio():
    ratio = np.array([0.1, 0.5, 3.0])  # of each half; the mean of both has twice as much
    np.testing.assert_allclose(against_truth(ratio / (1 + ratio)), np.sqrt(2 * ratio / (1 + 2 * ratio)))


def test_the_crossing_is_the_first_one_after_the_correlation_was_above():
    frequency, limit = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.full(5, 0.5)
    for values, expected in (
        ([0.9, 0.7, 0.4, 0.8, 0.2], (0.2 + 0.1 * 2 / 3, False, 0.4)),  # linear between 0.7 at 0.2 and 0.4 at 0.3
        ([0.1, 0.9, 0.9, 0.1, 0.1], (0.35, False, None)),  # the innermost ring may be badly transferred
        ([0.9, 0.9, 0.9, 0.9, 0.9], (None, True, None)),
        ([0.1, 0.1, 0.1, 0.1, 0.1], (None, False, None)),
    ):
        found = crossing(RingCorrelation(frequency, np.array(values), np.ones(5)), limit)
        assert (found.is_above, found.again) == expected[1:]
        assert found.frequency == (None if expected[0] is None else pytest.approx(expected[0]))


def test_a_shift_a_ramp_and_an_offset_are_found_and_taken_out():
    phase = 0.4 * smooth((90, 100), 0.1)
    spectrum = np.fft.fft2(np.exp(1j * phase))
    down, right = np.fft.fftfreq(90)[:, None], np.fft.fftfreq(100)
    moved = np.fft.ifft2(spectrum * np.exp(2j * np.pi * (0.37 * down - 1.21 * right)))
    rows, columns = np.indices((90, 100))
    ramp = 2 * np.pi * (0.4 * (rows - 44.5) / 50 - 0.23 * (columns - 47.5) / 60)
    target = np.exp(1j * phase)[20:70, 18:78]
    fitted, found = aligned(target, moved * np.exp(1j * (0.7 + ramp)), tapered((50, 60)), (20, 18))
    assert found.shift_2 == pytest.approx((0.37, -1.21), abs=0.021)
    assert found.turns_2 == pytest.approx((-0.4, 0.23), abs=0.011)
    assert found.offset_rad == pytest.approx(-0.7, abs=0.02)
    assert ring_correlation(target, fitted, tapered((50, 60))).correlation_R[:12].min() > 0.999


# ---- results of halves ----------------------------------------------------------------------------------------------


def half(phase: np.ndarray, first: tuple[int, int] = (16, 16), size: int = 40) -> Half:
    places = np.linspace(0, size, 11)
    positions = np.stack(np.meshgrid(first[0] + places, first[1] + places, indexing="ij"), -1).reshape(-1, 2)
    beam = np.exp(-((np.arange(32) - 16) ** 2) / 30)
    return Half(
        object_HW=np.exp(1j * phase),
        probe_MYX=(beam[:, None] * beam)[None] + 0j,
        positions_N2=positions,
        nominal_N2=positions,
        origin_2=np.zeros(2),
        pixel_size_angstrom=0.4,
    )


def test_only_the_scanned_part_is_compared():
    signal = 0.3 * smooth((72, 72), 0.2)
    one, other = signal.copy(), signal.copy()
    for each in (one, other):
        margin = np.ones((72, 72), dtype=bool)
        margin[16:57, 16:57] = False
        each[margin] = GENERATOR.normal(size=margin.sum())  # nothing lit it
        each += 1e-3 * GENERATOR.normal(size=(72, 72))
    found = measure(half(one), half(other))
    assert found.corner == (16, 16)
    assert found.window_HW.shape == (41, 41)
    assert found.crossings[1.0].is_above


def test_the_resolution_is_where_signal_and_noise_are_equally_strong():
    # Both are known: the ratio falls with frequency, and is 0.5 in a half, one bit in both, at 0.2 cycles per pixel.
    frequency = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(192))
    signal = np.fft.ifft2(np.fft.fft2(noise(192, 192)) * np.sqrt(0.5) * np.exp(-12 * (frequency - 0.2)))
    found = []
    for _ in range(3):
        rings = ring_correlation(signal + noise(192, 192), signal + noise(192, 192), tapered((192, 192)))
        found.append(crossing(rings, np.full(96, 1 / 3)).frequency)
    assert np.mean(found) == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("size", [18, 24, 40])
def test_strong_coarse_structure_does_not_pass_for_agreement_at_fine_periods(size: int) -> None:
    # The power of the signal is exp(−2·(f/0.1)²), that of the noise 9e-6: the ratio is 1 bit's 1/2 at f = 0.249.
    true, found = np.sqrt(-0.5 * np.log(0.5 * 9e-6)) * 0.1, []
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96))
    part = (slice(20, 20 + size), slice(20, 20 + size))
    for _ in range(20):
        signal = np.fft.ifft2(np.fft.fft2(noise(96, 96)) * np.exp(-((frequency / 0.1) ** 2)))
        rings = ring_correlation(*((signal + 3e-3 * noise(96, 96))[part] for _ in range(2)), tapered((size, size)))
        found.append(crossing(rings, threshold(rings.number_R, 1.0)).frequency or 0.5)
    assert true == pytest.approx(0.249, abs=1e-3)
    assert np.median(found) == pytest.approx(true, rel=0.08)
    assert np.median(found) < 1.05 * true  # no finer than it is


def test_a_single_fine_ring_that_agrees_is_no_resolution() -> None:
    frequency, limit = np.arange(1, 11) / 20, np.full(10, 0.5)
    alone = np.zeros(10)
    alone[7] = 0.9
    assert crossing(RingCorrelation(frequency, alone, np.ones(10)), limit) == (None, False, None)
    fine = np.arange(1, 41) / 80  # of a large scan, whose first six rings are hardly transferred
    late = np.where((fine > 0.08) & (fine < 0.3), 0.9, 0.0)
    assert crossing(RingCorrelation(fine, late, np.ones(40)), np.full(40, 0.5)).frequency == pytest.approx(
        0.3, abs=0.01
    )


def test_how_much_worse_than_noise_halves_fit_is_said_with_what_follows() -> None:
    assert list(misfit_in_words(None)) == []
    assert [each.split()[:2] for each in misfit_in_words(1.2)] == [["fit", "1.20"]]
    assert "in both halves alike" in "".join(misfit_in_words(1.43))


def test_results_of_different_scans_and_small_scans_are_one_message(tmp_path: Path):
    whole = half(np.zeros((72, 72)))
    with pytest.raises(DataError, match="not of the same scan"):
        measure(whole, half(np.zeros((72, 72)), first=(17, 16)))
    with pytest.raises(DataError, match="16 along each side"):
        measure(half(np.zeros((72, 72)), size=14), half(np.zeros((72, 72)), size=14))
    with pytest.raises(DataError, match=r"result\.h5 cannot be read"):
        read_half(tmp_path / "result.h5")


def test_halves_that_are_shifted_further_than_is_looked_for_are_doubtful():
    phase = 0.3 * smooth((72, 72), 0.1)
    said = [list(doubts(measure(half(phase), half(np.roll(phase, by, axis=0))))) for by in (2, 5)]
    assert said[0] == []
    assert "shifted against each other by 3 pixels or more" in said[1][0]


# ---- the command ----------------------------------------------------------------------------------------------------

RECIPE = """
trainkit = 1
[run]
name = "small"
epochs = 3
device = "cpu"
[pictures]
every_epochs = 0
[data]
use = "diffraction_simulated"
scan_shape = [16, 16]
detector_size = 32
batch_size = 16
dose_per_square_angstrom = 1e6
[model]
use = "ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
[optimizer]
use = "scaled_steps"
[scheduler]
use = "none"
[groups.probe]
start_epoch = 1
[groups.dr]
start_epoch = 1
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        state = start(resolve_text(RECIPE, folder), Console(True)).run.state
    return Path(state.folder).resolve()


def test_a_scan_that_is_too_small_is_refused_before_its_halves_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("epochs = 3", "epochs = 2").replace("[16, 16]", "[6, 6]")
    folder = Path(start(resolve_text(text, tmp_path), Console(True)).run.state.folder)
    with pytest.raises(DataError, match="needs 16 along each side"):
        compare_halves(folder, Console(True), sets=[], report=no_report)
    assert not (folder / "resolution").exists()


@pytest.mark.slow  # four small runs
def test_halves_of_a_run_are_reconstructed_and_compared(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(small.parent)

    def measured(*sets: str) -> tuple[dict[str, Any], list[Path]]:
        settings = [f"resolution.{each}" for each in sets]
        assert compare_halves(small, Console(), sets=settings, report=no_report) is ExitCode.FINISHED
        content = json.loads((small / "resolution" / "points.json").read_text())
        halves = [small / "resolution" / f"half_{half}" / content["halves"][half - 1] for half in (1, 2)]
        return content, halves

    content, halves = measured()
    said = capsys.readouterr().out
    assert "resolution by Fourier ring correlation between halves of the scan points:" in said
    assert "truth " in said
    assert (content["halves_of"], content["begin"], content["unit"]) == ("points", "nothing", "Å")
    assert content["misfit_over_noise"] > 1.3  # three epochs at a high dose
    assert (small / "resolution" / "points.png").is_file()
    with (small / "resolution" / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["correlation"]) > 0.9
    assert float(rows[2]["with_truth"]) > 0.9
    with h5py.File(halves[0] / "result.h5") as one, h5py.File(halves[1] / "result.h5") as other:
        moved = [each["positions_px"][()] - each["positions_nominal_px"][()] for each in (one, other)]
        trained = [set(np.flatnonzero(each.any(axis=1))) - set(one["held_out"][()]) for each in moved]
        assert not trained[0] & trained[1]  # each half has seen points of its own
        assert len(trained[0] | trained[1]) == 256 - len(one["held_out"])

    content, halves = measured("begin=finished", "epochs=2")
    assert content["begin"] == "finished"
    with h5py.File(small / "result.h5") as whole:
        for each in halves:
            with h5py.File(each / "result.h5") as half:
                np.testing.assert_allclose(half["probe"][()], whole["probe"][()], rtol=1e-5, atol=1e-7)
                np.testing.assert_allclose(half["positions_px"][()], whole["positions_px"][()], atol=1e-5)
                assert not np.allclose(half["object"][()], whole["object"][()], atol=1e-3)


def test_a_half_is_not_halved_again():
    recipe = resolve_text(RECIPE, Path(), ["data.half.part=2"]).recipe
    with pytest.raises(RecipeError, match="one with half of the data already"):
        FourierRing().changes(recipe, Path("x"), 1)


def test_halves_that_begin_with_the_run_share_all_of_its_model_but_the_object():
    thick = resolve_text(RECIPE, Path(), ["model.slices=3", "model.thickness_angstrom=30.0"]).recipe
    taken = FourierRing(begin="finished").changes(thick, Path("/x.safetensors"), 1)["initial_weights"]["take"]
    assert taken == ["probe", "dr", "scan", "thickness", "tilt", "point_tilts"]
    recipe = resolve_text(RECIPE, Path()).recipe
    changes = FourierRing(begin="finished", of="counts").changes(recipe, Path("/x.safetensors"), 2)
    assert changes == {
        "data": {"half": {"of": "counts", "part": 2}},
        "initial_weights": {"path": "/x.safetensors", "take": ["probe", "dr", "scan"]},
        "drop": ["groups.probe", "groups.dr"],
    }
