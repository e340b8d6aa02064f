"""Rasters that are walked otherwise than the recipe tells, and patterns that no geometry explains."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch

from trainkit_ptychography.preflight.advice import orientation_lines
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import middle_points
from trainkit_ptychography.preflight.variation import variation
from trainkit_ptychography.preflight.walks import other_walks
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.positions import oriented, raster

from .test_preflight import SPECIMENS, said, simulated


def spoiled(recipe: str, folder: Path, patterns: Any) -> str:
    """Return the recipe for a file whose patterns, (scan rows, scan columns, rows, columns), were changed."""
    path = Path(recipe.partition('path = "')[2].partition('"')[0])
    with h5py.File(path) as old, h5py.File(folder / "spoiled.h5", "w") as new:
        new["dp"], new["at"] = patterns(old["dp"][()]), old["at"][()]
    return recipe.replace(str(path), str(folder / "spoiled.h5"))


def pasted(recipe: str, doubt: str) -> str:
    """Return the recipe with the lines that a doubt says to paste."""
    for line in re.findall(r"\[data\] (.+? = (?:\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|[-\d.]+))", doubt):
        key = line.partition(" =")[0]
        recipe = re.sub(rf"^{'positions' if key == 'raster' else key} =.*\n", "", recipe, flags=re.M)
        recipe = recipe.replace("[data]\n", f"[data]\n{line}\n")
    return recipe


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe about whose geometry nothing is wrong."""
    return simulated(tmp_path_factory.mktemp("scan"), **SPECIMENS["overfocus"])


def rows_reversed(patterns_RCVU: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    patterns_RCVU[1::2] = patterns_RCVU[1::2, ::-1].copy()
    return patterns_RCVU


def columns_reversed(patterns_RCVU: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return rows_reversed(patterns_RCVU.swapaxes(0, 1).copy()).swapaxes(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words", "flip"),
    [
        (rows_reversed, "every second line of the raster runs backwards", 'positions_flip = ["rows"]\n'),
        (columns_reversed, "every second column of the raster is reversed", ""),
    ],
)
def test_a_snake_scan_that_was_not_undone_is_named_and_the_line_mends_it(
    right: str, tmp_path: Path, spoil: Any, words: str, flip: str
) -> None:
    recipe = spoiled(right, tmp_path, spoil).replace("[data]\n", f"[data]\n{flip}")
    (doubt,), _ = said(recipe)
    assert words in doubt
    doubts, lines = said(pasted(recipe, doubt))
    assert not doubts
    assert lines[0].startswith("geometry     as told")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("specimen", "sets"),
    [("few electrons", ()), ("overfocus", ("data.defocus_angstrom=-120.0",))],  # any object fits better than vacuum
)
def test_patterns_that_vary_and_fit_nothing_are_a_doubt(tmp_path: Path, specimen: str, sets: tuple[str, ...]) -> None:
    order = np.random.default_rng(0).permutation(14 * 14)
    recipe = simulated(tmp_path, **SPECIMENS[specimen] | {"size": 32})
    (doubt,), (line, _) = said(spoiled(recipe, tmp_path, lambda each: each.reshape(196, 32, 32)[order]), *sets)
    assert re.search(r"differ from each other \([\d.]+ times as much as by noise alone\)", doubt)
    assert "not judged: nothing that was tried explains" in line


def test_a_few_empty_or_bright_patterns_do_not_spoil_the_trial(right: str, tmp_path: Path) -> None:
    def spoil(patterns_RCVU: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        patterns_RCVU[6, 2:12] = 0
        patterns_RCVU[8, 3:10] *= 100
        return patterns_RCVU

    doubts, (line, _) = said(spoiled(right, tmp_path, spoil))
    assert not doubts
    assert line.startswith("geometry     as told, by a trial with 179 patterns")


def test_patterns_further_out_are_taken_where_those_in_the_middle_are_empty(right: str, tmp_path: Path) -> None:
    def spoil(patterns_RCVU: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        patterns_RCVU[2:12, 2:12] = 0
        return patterns_RCVU

    recipe = spoiled(right, tmp_path, spoil)
    data = HDF5Diffraction(path=tmp_path / "spoiled.h5", patterns="dp", positions="at", pixel_size_angstrom=0.4)
    recording = data.read()
    points_N = middle_points(recording, 50)
    assert len(points_N) == 50
    assert (recording.intensities_NYX[points_N].sum((1, 2)) > 0).all()
    assert not said(recipe)[0]


@pytest.mark.parametrize("snake", [False, True])
@pytest.mark.parametrize("unit", ["nm", "pixels"])
@pytest.mark.parametrize("told", [{}, {"positions_order": "column_row", "positions_rotation_deg": 25.0}])
@pytest.mark.parametrize("left_out", [(), (0, 7)])
def test_the_lines_to_paste_place_patterns_as_the_walk_does(
    tmp_path: Path, snake: bool, unit: Any, told: dict[str, Any], left_out: tuple[int, ...]
) -> None:
    shape = (5, 4)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["dp"] = 1 + np.arange(20.0).reshape(*shape, 1, 1) * np.ones((8, 8))
        file["at"] = oriented(raster(shape, (3.0, 2.0), snake), True, ("rows",), -10.0)
    data = HDF5Diffraction(
        path=tmp_path / "scan.h5",
        patterns="dp",
        positions="at",
        pixel_size_angstrom=0.5,
        positions_unit=unit,
        leave_out=LeaveOut(points=left_out),
        **told,
    )
    recording = data.read()
    walks = list(other_walks(recording))
    assert len(walks) == 4
    for walk in walks:
        lines = [walk.line(data), *orientation_lines(Geometry(), data, walk)]
        if walk.exchanged and left_out:
            assert lines[0] == "reverse every second column in the file"
            continue
        text = "\n".join(
            ", ".join(lines).replace("paste ", "").replace(" in place of positions", "").split(", [data] ")
        )
        new: dict[str, Any] = tomllib.loads(text.replace("[data] ", ""))
        new["raster"] = Raster(**{key: tuple(x) if isinstance(x, list) else x for key, x in new["raster"].items()})
        if "positions_flip" in new:
            new["positions_flip"] = tuple(new["positions_flip"])
        found = attrs.evolve(data, positions=None, **new).read()  # type: ignore[misc]
        number_N, told_N = (
            each.intensities_NYX[np.arange(len(each.intensities_NYX))][:, 0, 0].argsort() for each in (found, recording)
        )
        there_N2, here_N2 = found.scan.positions_N2[number_N], walk.positions_N2[told_N]
        np.testing.assert_allclose(there_N2 - there_N2.mean(0), here_N2 - here_N2.mean(0), atol=1e-2)


def test_points_that_are_no_raster_have_no_other_walk(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["dp"] = np.ones((20, 8, 8))
        file["at"] = np.random.default_rng(0).uniform(0, 20, (20, 2))
    data = HDF5Diffraction(path=tmp_path / "scan.h5", patterns="dp", positions="at", positions_unit="pixels")
    assert not list(other_walks(data.read()))


@pytest.mark.parametrize("gain", [1.0, 7.3])
def test_noise_does_not_make_patterns_vary_and_a_change_of_many_pixels_does(gain: float) -> None:
    generator = np.random.default_rng(0)
    mean_YX = 40 * np.exp(-((np.mgrid[:16, :16] - 8) ** 2).sum(axis=0) / 18)
    shape_YX = np.cos(np.mgrid[:16, :16][0])
    power_N = generator.uniform(0.5, 1.5, 100)[:, None, None]
    change_N = generator.uniform(-0.4, 0.4, 100)[:, None, None]

    def amplitudes(expected_NYX: Any) -> torch.Tensor:
        return torch.from_numpy(np.sqrt(gain * generator.poisson(expected_NYX)))

    assert 0.8 < variation(amplitudes(power_N * mean_YX), None) < 1.2
    assert variation(amplitudes(power_N * mean_YX * (1 + change_N * shape_YX)), None) > 2
