"""What a run says of its geometry: a warning at its beginning, and whether its result is doubtful at its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trainkit import Context
from trainkit.console import Console
from trainkit.engine.start import ExitCode, RunOutcome, start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.preflight.mirror import compare
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.scan import checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

pytestmark = pytest.mark.geometry_search

RECIPE = """
trainkit = 1
[run]
epochs = 4
device = "cpu"
threads = 1
[pictures]
every_epochs = 0
[data]
use = "diffraction_simulated"
scan_shape = [14, 14]
step_angstrom = 0.8
detector_size = 40
defocus_angstrom = 120.0
batch_size = 16
validation_fraction = 0.1
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
[groups.object]
lr = 2e-2
"""


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*sets: str) -> tuple[RunOutcome, str]:
    ending = start(resolve_text(RECIPE, Path.cwd(), sets), Console(quiet=True))
    return ending, (ending.run.state.folder / "log.txt").read_text()


@pytest.mark.slow
def test_a_run_with_the_right_geometry_says_nothing() -> None:
    ending, log = run("run.epochs=5")  # from then on, other geometries are tried at the end
    assert ending.code is ExitCode.FINISHED
    assert "geometry" not in log


@pytest.mark.slow
def test_a_run_with_the_wrong_sign_of_the_defocus_warns_and_ends_as_doubtful() -> None:
    ending, log = run("model.probe.defocus_angstrom=-120.0")
    assert log.count("warning: the patterns contradict the geometry that is told") == 1
    assert ending.code is ExitCode.DOUBTFUL
    assert "the geometry is wrong by all appearance" in ending.run.state.doubts[-1]


@pytest.mark.slow
def test_a_run_whose_defocus_is_told_much_too_large_ends_as_doubtful() -> None:
    ending, _ = run("model.probe.defocus_angstrom=192.0", "run.epochs=5")
    assert ending.code is ExitCode.DOUBTFUL
    assert "another geometry does" in ending.run.state.doubts[-1]


def test_a_run_that_ends_no_better_than_an_empty_object_is_doubtful() -> None:
    ending, _ = run("run.epochs=1", "groups.object.lr=2.0")
    assert ending.code is ExitCode.DOUBTFUL
    assert "no better than an empty object" in ending.run.state.doubts[0]


@pytest.mark.slow
def test_a_run_with_few_electrons_is_not_doubted_when_it_is_right() -> None:
    # The mean of √n is far below √(mean of n) there: the misfit of amplitudes prefers an empty object.
    ending, _ = run(
        *("data.dose_per_square_angstrom=800", "data.position_error_angstrom=0.0", "losses.data.use=poisson"),
        *("optimizer.use=scaled_steps", "groups.object.lr=0.5", "run.epochs=10", "hooks.truth.use=ptychography_truth"),
    )
    assert ending.run.state.metrics["truth/phase_pearson"] > 0.6
    assert ending.code is ExitCode.FINISHED


def test_a_run_that_has_hardly_begun_to_fit_is_not_doubted() -> None:
    ending, _ = run("run.epochs=1", "groups.object.lr=1e-3")
    assert ending.code is ExitCode.FINISHED


def test_the_comparison_with_the_mirror_is_remembered_for_the_same_patterns_and_probe(tmp_path: Path) -> None:
    settings = SimulatedDiffraction(scan_shape=(6, 6), detector_size=24)
    data = settings.build(Context(0, torch.device("cpu"), tmp_path))
    probe_MYX = torch.rand(1, 24, 24).numpy() + 0j
    found = compare(data, probe_MYX)
    (file,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"told": 7.0}))
    again = compare(data, probe_MYX)
    assert found is not None
    assert again is not None
    assert again.told == 7.0
    assert again.mirrored == found.mirrored
    other = compare(data, probe_MYX * 2)
    assert other is not None
    assert other.told == pytest.approx(found.told, rel=1e-4)
    file.write_text("not JSON")  # damaged: found again
    assert compare(data, probe_MYX) == found


def test_patterns_that_are_turned_around_are_compared_anew(tmp_path: Path) -> None:
    recording = SimulatedDiffraction(scan_shape=(6, 6), detector_size=24).read()
    turned_NYX = np.roll(np.asarray(recording.intensities_NYX)[:, ::-1, ::-1], 1, axis=(1, 2))  # totals are the same
    context = Context(0, torch.device("cpu"), tmp_path)
    probe_MYX = torch.rand(1, 24, 24).numpy() + 0j
    found, turned = (
        compare(LiveDiffraction(checked(each), context, 36, 0.0), probe_MYX)
        for each in (recording, recording._replace(intensities_NYX=turned_NYX))
    )
    assert found is not None
    assert turned is not None
    assert turned.told != found.told
    assert turned.told == pytest.approx(found.mirrored, rel=0.2)  # the same question asked the other way round


def test_a_cache_that_cannot_be_written_keeps_no_run_from_going_on(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    data = SimulatedDiffraction(scan_shape=(6, 6), detector_size=24).build(Context(0, torch.device("cpu"), tmp_path))
    assert compare(data, torch.rand(1, 24, 24).numpy() + 0j) is not None


@pytest.mark.slow
def test_a_run_that_begins_with_its_patterns_says_what_they_show_and_draws_it() -> None:
    ending, log = run("run.epochs=1", 'model.object={use="from_data", method="parallax"}')
    assert ending.code is ExitCode.FINISHED
    assert "without a reconstruction: " in log
    assert "the object begins with a phase by parallax: misfit of " in log
    figures = ending.run.state.folder / "figures"
    assert {"object_beginning-0001.png", "geometry-0001.png"} <= {each.name for each in figures.iterdir()}
