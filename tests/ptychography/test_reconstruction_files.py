"""Further files of a reconstruction, and where a result says that it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch

from trainkit import Context, Monitor, Problem, State
from trainkit_ptychography.hooks.reconstruction_files import ReconstructionFiles
from trainkit_ptychography.models.output import Reconstruction, write_files
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.output.provenance import provenance
from trainkit_ptychography.scans.files.cxi import CXIDiffraction
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

GENERATOR = np.random.default_rng(5)
SETTINGS = SimulatedDiffraction(scan_shape=(5, 4), detector_size=16)


class Model(torch.nn.Module):
    """Gives a reconstruction of three slices."""

    def reconstruction(self) -> Reconstruction:
        return Reconstruction(
            phase_SHW=GENERATOR.normal(size=(3, 30, 28)),
            amplitude_SHW=np.ones((3, 30, 28)),
            probe_MYX=GENERATOR.normal(size=(2, 16, 16, 2)) @ np.array([1, 1j]),
            positions_N2=DATA.scan.positions_N2 + 0.25,
            origin_2=np.array([3.0, 4.0]),
            slice_spacing_angstrom=8.0,
        )


DATA = SETTINGS.build(Context(0, torch.device("cpu"), Path()))
SIZE = SETTINGS.pixel_size_angstrom


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "name" / "2026-01-01-abc"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"id": "abc", "parent": {"run": "before", "epoch": 3}}))
    (folder / "recipe.toml").write_text('[run]\nname = "name"\n')
    starts = [{"versions": {"trainkit": "0.0"}}, {"versions": {"trainkit": "0.1.0", "torch": "2.13"}}]
    (folder / "environment.json").write_text(json.dumps({"starts": starts}))
    write_files(Model().reconstruction(), DATA, folder)
    context = Context(0, torch.device("cpu"), folder)
    live: Any = ReconstructionFiles().build(context)
    state = State(context, 2, Model(), DATA, {}, Monitor(), ended="finished")
    live.on_run_start(state)
    live.on_run_end(state)
    return folder


def test_a_result_says_where_it_comes_from(folder):
    with h5py.File(folder / "result.h5") as file:
        told = {name: text.asstr()[()] for name, text in file["provenance"].items()}
        assert file.attrs["energy_kev"] == SETTINGS.energy_kev
        # Counting noise of some 100,000 electrons a pattern; the last step counts as half a point on each side.
        dose = SETTINGS.dose_per_square_angstrom
        assert file.attrs["dose_counts_per_square_angstrom"] == pytest.approx(dose, rel=0.01)
        box = file.attrs["scanned_box_px"]
        np.testing.assert_allclose(box[2:] - box[:2], np.array([4, 3]) * SETTINGS.step_angstrom / SIZE)
        np.testing.assert_allclose(box[:2], file["positions_nominal_px"][0])
    assert told == {
        "run": "name/2026-01-01-abc",
        "run_id": "abc",
        "parent_run_id": "before",
        "recipe": '[run]\nname = "name"\n',
        "versions": "trainkit 0.1.0\ntorch 2.13",
    }


def test_a_folder_that_says_nothing_of_its_run_gives_no_provenance(tmp_path):
    assert provenance(tmp_path) == {}
    (tmp_path / "run.json").write_text("[]")
    (tmp_path / "environment.json").write_text('{"starts": [1]}')
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    assert provenance(tmp_path) == {}


def test_numpy_s_archive_holds_the_arrays_of_the_result(folder):
    with np.load(folder / "result.npz") as archive, h5py.File(folder / "result.h5") as file:
        held = {name for name, item in file.items() if isinstance(item, h5py.Dataset)}
        assert set(archive) == held
        assert archive["object"].dtype == file["object"].dtype
        np.testing.assert_array_equal(archive["positions_angstrom"], file["positions_angstrom"])


def test_a_cxi_file_has_object_probe_and_scan_points_in_metres(folder):
    with h5py.File(folder / "result.cxi") as file, np.load(folder / "result.npz") as archive:
        entry = file["entry_1"]
        np.testing.assert_array_equal(entry["image_1/data"], archive["object"])
        np.testing.assert_array_equal(entry["image_2/data"], archive["probe"])
        columns, rows, zeros = entry["sample_1/geometry_1/translation"][()].T
        np.testing.assert_allclose(np.stack([rows, columns], axis=1) * 1e10, archive["positions_angstrom"])
        assert not zeros.any()
        np.testing.assert_allclose(entry["image_1/image_size"], [28 * SIZE * 1e-10, 30 * SIZE * 1e-10, 0])
        np.testing.assert_allclose(entry["image_1/image_center"], [(4 + 14) * SIZE * 1e-10, (3 + 15) * SIZE * 1e-10, 0])
        assert entry["image_1/process_1/program"].asstr()[()] == "trainkit"
        assert entry["process_1/run_id"].asstr()[()] == "abc"
        assert file["cxi_version"][()] == 160


def test_the_scan_points_of_a_cxi_file_are_read_back_as_they_are(folder, tmp_path):
    patterns = np.ones((len(DATA.scan.positions_N2), 16, 16), np.float32)
    (tmp_path / "scan.cxi").write_bytes((folder / "result.cxi").read_bytes())
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["entry_1/instrument_1/detector_1/data"] = patterns
    settings = CXIDiffraction(path=tmp_path / "scan.cxi", pixel_size_angstrom=SIZE, energy_kev=80.0)
    with np.load(folder / "result.npz") as archive:
        np.testing.assert_allclose(settings.read().scan.positions_N2 * SIZE, archive["positions_angstrom"])


def test_imagej_opens_stacks_a_page_for_each_slice(folder, tmp_path):
    with tifffile.TiffFile(folder / "object_phase_slices.tif") as file:
        assert len(file.pages) == 3
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["slices"], file.imagej_metadata["spacing"]) == (3, 8.0)
    values = GENERATOR.normal(size=(4, 5, 7)).astype(np.float32)
    write_imagej_tiff(tmp_path / "stack.tif", values, 0.4, 8.0)
    with tifffile.TiffFile(tmp_path / "stack.tif") as file:
        np.testing.assert_array_equal([page.asarray() for page in file.pages], values)
        pixels, units = file.pages[0].tags["XResolution"].value  # type: ignore[union-attr]
        assert units / pixels == pytest.approx(0.4, rel=1e-6)


def test_only_the_forms_that_are_named_are_written(tmp_path):
    context = Context(0, torch.device("cpu"), tmp_path)
    live: Any = ReconstructionFiles(forms=("numpy",)).build(context)
    live.on_run_end(State(context, 2, Model(), DATA, {}, Monitor(), ended="finished"))
    assert [path.name for path in tmp_path.iterdir()] == ["result.npz"]
    (problem,) = ReconstructionFiles(forms=()).problems(None)  # type: ignore[arg-type]
    assert isinstance(problem, Problem)
    assert problem.key == "forms"
