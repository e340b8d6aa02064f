"""Every recipe that comes with trainkit runs: on its own data, or on a tiny made-up file in the same layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from trainkit.engine.start import ExitCode, start
from trainkit.hooks.progress import Console
from trainkit.recipe.library import shipped
from trainkit.recipe.resolve import resolve

SIZE = 16
GENERATOR = np.random.default_rng(0)


def nothing(folder: Path) -> tuple[str, ...]:
    small = ("data.scan_shape=[5, 5]", "data.detector_size=24")
    return (*small, "groups.probe.start_epoch=1", "groups.dr.start_epoch=1")


def as_mos2(folder: Path) -> tuple[str, ...]:
    grid = np.stack(np.meshgrid(*(5.0 + 0.9 * np.arange(4),) * 2, indexing="ij"), -1).reshape(-1, 2)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["intensity"] = GENERATOR.poisson(20.0, (4, 4, SIZE, SIZE)).astype(np.float32)
        file["positions_nominal_A"] = grid
        file["positions_true_A"] = grid + GENERATOR.normal(0.0, 0.1, grid.shape)
        file["gt/phase_rad"] = GENERATOR.random((64, 64)).astype(np.float32)
    return (f"data.path={folder / 'scan.h5'}", "data.dk_per_angstrom=0.156", "groups.dr.start_epoch=1")


def as_siemens(folder: Path) -> tuple[str, ...]:
    data = GENERATOR.poisson(20.0, (1, 16, SIZE, SIZE)).astype(np.float32)
    probe = np.ones((1, 1, 1, 1, SIZE, SIZE), np.complex64)
    np.savez(folder / "scan.npz", data=data, scan=GENERATOR.uniform(0, 9, (1, 16, 2)), probe=probe)
    return (f"data.path={folder / 'scan.npz'}",)


MADE_UP: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "ptycho_mos2": as_mos2,
    "ptycho_siemens": as_siemens,
    "ptycho_staged": nothing,
}


@pytest.mark.parametrize("name", shipped())
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets = MADE_UP[name](tmp_path)
    few = ("run.epochs=2", "run.device=cpu", "data.batch_size=12", "data.validation_fraction=0.1")
    ending = start(resolve(shipped()[name], (*sets, *few)), Console(quiet=True))
    assert ending.code is ExitCode.FINISHED
    folder = ending.run.state.folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert lines[1]["train/loss"] < lines[0]["train/loss"]
    assert {"object_phase-0002.png", "probe-0002.png"} <= {path.name for path in (folder / "figures").iterdir()}
    with h5py.File(folder / "result.h5") as result:
        assert len(result) > 0


@pytest.mark.parametrize("name", ["ptycho_mos2", "ptycho_siemens"])
def test_a_recipe_without_its_data_says_what_to_set(name: str) -> None:
    from trainkit import RecipeError

    with pytest.raises(RecipeError, match=r'"path" is missing'):
        resolve(shipped()[name])
