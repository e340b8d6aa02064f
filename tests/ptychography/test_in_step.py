"""Patterns that belong to other scan points than their places in the file tell."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainkit import Context, DataError, Problem
from trainkit.console import Console
from trainkit.engine.start import ExitCode, start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.preflight.ending import Ending
from trainkit_ptychography.preflight.in_step import in_step
from trainkit_ptychography.preflight.inspection import inspect_geometry
from trainkit_ptychography.preflight.step_advice import steps_in_words
from trainkit_ptychography.preflight.watch import GeometryWatch
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.pairing import Pairing
from trainkit_ptychography.scans.scan import Recording, Scan
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import atoms, patterns

pytestmark = pytest.mark.geometry_search

ROWS, COLUMNS = 24, 20
NUM = ROWS * COLUMNS


@cache
def raster(dose: float) -> Recording:
    """Return a raster, whose patterns are in the order of its points."""
    settings = SimulatedDiffraction(
        scan_shape=(ROWS, COLUMNS), detector_size=40, step_angstrom=0.6, dose_per_square_angstrom=dose, seed=3
    )
    recording = settings.read()
    return recording._replace(scan=attrs.evolve(recording.scan, truth=None))


def in_order(order_N: NDArray[np.int64], dose: float = 1e5) -> Recording:
    recording = raster(dose)
    return Recording(recording.intensities_NYX[order_N], recording.scan.some(order_N))


def scan(walk: str, dose: float = 1e5) -> Recording:
    """Return the same scan as if its points had been visited in another order."""
    order_RC = np.arange(NUM).reshape(ROWS, COLUMNS)
    if walk == "snake":
        order_RC[1::2] = order_RC[1::2, ::-1].copy()
    if walk == "random":
        order_RC = np.random.default_rng(0).permutation(NUM).reshape(ROWS, COLUMNS)
    if walk == "columns":
        order_RC = order_RC.T
    recording = in_order(order_RC.ravel(), dose)
    return recording._replace(scan=attrs.evolve(recording.scan, points_N=None))


def moved(recording: Recording, first: int, later: int) -> Recording:
    """Return a scan whose patterns, from one on, are those of later points, or of the last one."""
    taken_N = np.arange(NUM)
    taken_N[first:] += later
    return recording._replace(intensities_NYX=recording.intensities_NYX[np.clip(taken_N, 0, NUM - 1)])


@pytest.mark.parametrize(
    ("walk", "dose"), [("raster", 1e5), ("raster", 1e4), ("snake", 1e4), ("columns", 1e4), ("random", 1e5)]
)
def test_a_scan_in_step_is_not_doubted(walk: str, dose: float) -> None:
    steps = in_step(scan(walk, dose))
    assert (list(steps.found), steps.not_told) == ([], "")
    assert steps.seen is not None
    assert steps.seen[0] == 0
    assert steps.seen[1] >= 0.95 * NUM


@pytest.mark.parametrize(
    ("walk", "dose", "first", "later"),
    [
        ("raster", 1e4, 440, 1),
        ("raster", 1e4, 0, -3),
        ("snake", 1e4, 165, 1),
        ("snake", 1e4, 247, -3),
        ("raster", 2e3, 440, 1),
        ("raster", 2e3, 247, -3),
    ],
)
def test_a_lost_frame_and_late_patterns_are_found_with_their_place(
    walk: str, dose: float, first: int, later: int
) -> None:
    steps = in_step(moved(scan(walk, dose), first, later))
    (found,) = steps.found
    assert (found.later, steps.is_certain) == (later, True)
    assert found.last == NUM - 1 - max(0, later)  # the last patterns belong to no point of the scan
    assert abs(found.first - first) <= 2 - min(0, later)  # `moved` saves patterns of earlier points
    assert steps.as_found > 1.25 * steps.as_told


def test_a_random_order_tells_as_well() -> None:
    (found,) = in_step(moved(scan("random"), 300, 1)).found
    assert (found.later, found.first) == (1, 300)


@cache
def spiral(num: int = 250) -> Recording:
    """Return a Fermat spiral, each of whose points has neighbours that come 8, 13, 21 … points later."""
    number_N, pixel, size = np.arange(num), 0.4, 40
    radius_N, angle_N = 0.6 * np.sqrt(number_N / np.pi), number_N * np.pi * (3 - np.sqrt(5))
    positions_N2 = np.stack([np.sin(angle_N), np.cos(angle_N)], axis=1) * radius_N[:, None] / pixel
    positions_N2 += size // 2 + 4 - positions_N2.min(axis=0)
    phase_KL = atoms((80, 80), 3.5, 0.9, np.random.default_rng(0))
    probe_YX = aperture_probe((size, size), pixel, electron_wavelength(80.0), 25.0, {"C10": (-60.0, 0.0)})
    expected_NYX = patterns(np.exp(1j * phase_KL), probe_YX, positions_N2)
    seen_NYX = np.random.default_rng(1).poisson(1e5 * 0.6**2 * expected_NYX).astype(np.float32)
    return Recording(seen_NYX, Scan(positions_N2=positions_N2, source="spiral"))


@pytest.mark.parametrize(("first", "later"), [(80, 1), (200, 1), (125, -1)])
def test_a_lost_frame_in_a_fermat_spiral_is_found_with_its_place(first: int, later: int) -> None:
    assert not in_step(spiral()).found
    taken_N = np.arange(len(spiral().intensities_NYX))
    taken_N[first:] += later
    lost = spiral()._replace(intensities_NYX=spiral().intensities_NYX[np.clip(taken_N, 0, len(taken_N) - 1)])
    steps = in_step(lost)
    (found,) = steps.found
    assert (found.first, found.later, steps.is_certain) == (first, later, True)


def test_a_single_row_does_not_show_a_lost_frame_and_says_so() -> None:
    row_N = np.arange(5 * COLUMNS)
    recording = scan("raster")
    along_N2 = np.stack([np.zeros(len(row_N)), 1.5 * row_N], axis=1)
    row = Recording(recording.intensities_NYX[row_N], attrs.evolve(recording.scan, positions_N2=along_N2))
    (line,) = steps_in_words(row).lines
    assert line.startswith("pairing      not checked: a lost frame would not show")


@pytest.mark.parametrize(("rows", "columns"), [(30, 16), (12, 40)])
def test_a_raster_whose_shape_is_told_wrong_is_not_taken_for_lost_frames(rows: int, columns: int) -> None:
    recording = scan("raster")
    told_N2 = np.stack(np.divmod(np.arange(NUM), columns), axis=1).astype(np.float64)
    steps = in_step(recording._replace(scan=attrs.evolve(recording.scan, positions_N2=told_N2)))
    assert not steps.found


def told(recording: Recording, pairing: Pairing) -> Recording:
    """Return a scan as it is read with a pairing."""
    point_T = np.array(pairing.points(NUM, NUM))
    used_N, every_M2 = np.flatnonzero(point_T >= 0), recording.scan.positions_N2
    of_used = attrs.evolve(
        recording.scan,
        positions_N2=every_M2[point_T[used_N]],
        points_N=used_N,
        point_T=point_T,
        every_point_M2=every_M2,
    )
    return Recording(recording.intensities_NYX[used_N], of_used)


@pytest.mark.slow
@pytest.mark.parametrize(
    "begin",
    [
        Pairing(missed_points=(246, 247)),
        Pairing(missed_points=("60:90",)),
        Pairing(missed_points=(60,), extra_patterns=("0:2",)),
    ],
    ids=str,
)
def test_who_follows_the_advice_ends_at_the_truth_wherever_he_begins(begin: Pairing) -> None:
    lost, pairing = moved(scan("raster"), 247, 1), begin
    for _ in range(3):
        steps = in_step(told(lost, pairing))
        if not steps.found:
            break
        assert steps.is_certain
        pairing = Pairing.of_points(steps.point_T.tolist())
    assert pairing == Pairing(missed_points=(247,))


def test_two_lost_frames_are_two_findings() -> None:
    twice = moved(moved(scan("raster"), 150, 1), 320, 1)
    assert [(each.first, each.later) for each in in_step(twice).found] == [(150, 1), (320, 2)]


def test_patterns_that_are_left_out_do_not_matter() -> None:
    kept_N = np.delete(np.arange(NUM), [40, 41, 199, 333])
    whole = moved(scan("raster"), 247, 1)
    assert not in_step(Recording(scan("raster").intensities_NYX[kept_N], raster(1e5).scan.some(kept_N))).found
    (found,) = in_step(Recording(whole.intensities_NYX[kept_N], whole.scan.some(kept_N))).found
    assert (found.later, found.first) == (1, 247)


def test_patterns_without_a_specimen_or_too_few_tell_nothing() -> None:
    recording = scan("raster")
    mean_YX = np.asarray(recording.intensities_NYX[np.arange(NUM)]).mean(axis=0)
    noise_NYX = np.random.default_rng(1).poisson(mean_YX, (NUM, *mean_YX.shape)).astype(np.float32)
    of_noise = in_step(Recording(noise_NYX, recording.scan))
    assert (list(of_noise.found), of_noise.seen) == ([], None)
    few_N = np.arange(40)
    few = Recording(recording.intensities_NYX[few_N], recording.scan.some(few_N))
    assert steps_in_words(few).lines == ["pairing      not checked: fewer than 48 patterns tell too little"]


def test_a_beam_that_flies_back_during_the_first_frame_of_each_row_is_no_late_detector() -> None:
    recording = scan("raster")
    patterns_NYX = np.array(recording.intensities_NYX[np.arange(NUM)])
    patterns_NYX[::COLUMNS] = patterns_NYX[COLUMNS // 2 :: COLUMNS]
    assert not in_step(recording._replace(intensities_NYX=patterns_NYX)).found


@pytest.mark.parametrize("num_patterns", [9, 10, 12])
def test_settings_follow_from_the_points_of_patterns_and_give_these_again(num_patterns: int) -> None:
    rng = np.random.default_rng(num_patterns)
    for _ in range(50):
        points = np.full(num_patterns, -1)
        with_point = np.sort(rng.choice(num_patterns, 7, replace=False))
        points[with_point] = np.sort(rng.choice(10, 7, replace=False))
        pairing = Pairing.of_points(points.tolist())
        found = pairing.points(num_patterns, 10)
        last = with_point[-1] + 1
        assert found[:last] == points[:last].tolist()


@pytest.mark.parametrize("dose", [1e5, 1e4])
def test_columns_that_are_reversed_are_not_taken_for_patterns_that_moved(dose: float) -> None:
    order_RC = np.arange(NUM).reshape(ROWS, COLUMNS)
    order_RC[:, 1::2] = order_RC[::-1, 1::2].copy()
    as_told = scan("raster", dose)
    steps = in_step(as_told._replace(intensities_NYX=as_told.intensities_NYX[order_RC.ravel()]))
    assert (list(steps.found), steps.not_told[:8]) == ([], "patterns")


def written(folder: Path, recording: Recording, pairing: str, points: int = NUM) -> FileDiffraction:
    with h5py.File(folder / "scan.h5", "w") as file:
        patterns_NYX = np.asarray(recording.intensities_NYX[np.arange(len(recording.intensities_NYX))])
        file["patterns"] = np.fft.fftshift(patterns_NYX, axes=(1, 2))
        file["positions"] = recording.scan.positions_N2[:points]
        file["true"] = recording.scan.positions_N2[:points] + 0.25
        file["phase"] = np.zeros((90, 90), np.float32)
    (folder / "recipe.toml").write_text(
        'trainkit = 1\n[run]\nepochs = 1\n[data]\nuse = "diffraction_hdf5"\npath = "scan.h5"\npatterns = "patterns"\n'
        'positions = "positions"\npositions_unit = "pixels"\nenergy_kev = 80.0\npixel_size_angstrom = 0.4\n'
        'semiangle_mrad = 25.0\ndefocus_angstrom = 60.0\ntruth_phase = "phase"\ntruth_positions = "true"\n'
        f'{pairing}\n[model]\nuse = "ptychography"\nprobe = {{ use = "aperture" }}\n'
        '[losses.data]\nuse = "poisson"\n[optimizer]\nuse = "scaled_steps"\n'
    )
    data = resolve(folder / "recipe.toml").recipe.data
    assert isinstance(data, FileDiffraction)
    return data


def inspected(folder: Path) -> list[Problem]:
    recipe = resolve(folder / "recipe.toml").recipe
    return [each for each in inspect_geometry(recipe.data, recipe.model.probe, recipe) if isinstance(each, Problem)]  # type: ignore[arg-type, attr-defined]


@pytest.mark.parametrize(
    ("first", "later", "line"),
    [(247, 1, "pairing = { missed_points = [247] }"), (0, -3, 'pairing = { extra_patterns = ["0:3"] }')],
)
def test_the_line_to_paste_brings_a_file_into_step(tmp_path: Path, first: int, later: int, line: str) -> None:
    recording = moved(scan("raster"), first, later)
    written(tmp_path, recording, "")
    (doubt,) = inspected(tmp_path)
    assert f"paste [data] {line}; then check again" in doubt.message

    read = written(tmp_path, recording, line).read()
    place_N = np.arange(NUM)[max(0, -later) : NUM - max(0, later)]
    assert read.scan.points_N is not None
    assert (read.scan.points_N == place_N).all()
    assert read.scan.left_out == {"without a scan point (pairing)": abs(later)}
    told_N2 = raster(1e5).scan.positions_N2[place_N + np.where(place_N >= first, later, 0)]
    assert read.scan.positions_N2 == pytest.approx(told_N2)
    assert read.scan.truth is not None
    assert read.scan.truth.positions_N2 == pytest.approx(told_N2 + 0.25)
    assert not steps_in_words(read).doubts


def test_a_file_that_lacks_the_lost_frame_is_read_and_a_second_one_adds_to_the_line(tmp_path: Path) -> None:
    lost = moved(moved(scan("raster"), 150, 1), 320, 1)
    short = Recording(lost.intensities_NYX[np.arange(NUM - 2)], lost.scan)
    data = written(tmp_path, short, "pairing = { missed_points = [150] }")
    (text,) = steps_in_words(data.read(), data).doubts
    assert text.endswith("paste [data] pairing = { missed_points = [150, 321] }; then check again")


@pytest.mark.slow
def test_a_run_out_of_step_ends_doubtful_also_after_few_epochs_and_with_trained_positions(tmp_path: Path) -> None:
    written(tmp_path, moved(scan("raster"), 247, 1), "")
    sets = (f"run.dir={tmp_path}", "groups.dr.start_epoch=0", "pictures.every_epochs=0")
    ended = start(resolve(tmp_path / "recipe.toml", sets), Console(quiet=True))
    assert ended.code is ExitCode.DOUBTFUL
    assert "belong to 1 scan point later" in ended.run.state.doubts[0]


def test_numbers_that_the_file_does_not_have_are_refused(tmp_path: Path) -> None:
    data = written(tmp_path, scan("raster"), f"pairing = {{ missed_points = [{NUM}] }}")
    with pytest.raises(DataError, match=f"missed_points names {NUM}, but there are {NUM} scan points"):
        data.read()


def test_a_run_warns_at_its_beginning_and_doubts_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for lost, doubts in ((moved(scan("raster"), 247, 1), 1), (scan("raster"), 0)):
        monkeypatch.setattr(SimulatedDiffraction, "read", lambda self, lost=lost: lost)
        data = SimulatedDiffraction().build(Context(0, torch.device("cpu"), tmp_path))
        watch, found = GeometryWatch(data, None), list[str]()
        caplog.clear()
        watch.warn()
        warned = [each for each in caplog.messages if "belong to 1 scan point later" in each]
        state: Any = SimpleNamespace(doubts=found, doubt=found.append, epoch=30, groups={})
        watch.judge_ending(state, Ending(np.zeros((1, 40, 40), complex), data.scan.positions_N2))
        assert (len(warned), len(found)) == (doubts, doubts)


def test_a_range_that_names_nothing_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path, scan("raster"), f'pairing = {{ extra_patterns = ["{NUM}:{NUM + 3}"] }}')
    with pytest.raises(DataError, match=f'extra_patterns names "{NUM}:{NUM + 3}", which are none of {NUM} patterns'):
        data.read()
