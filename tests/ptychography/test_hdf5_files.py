"""HDF5 files as other programs write them: links, virtual datasets, Matlab's conventions, and files that could hurt."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
from inspected import inspected
from numpy.typing import NDArray

from trainkit import DataError, Problem
from trainkit_ptychography.probes.from_file import ProbeFromFile
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.hdf5_live import HDF5File
from trainkit_ptychography.scans.files.on_disk import OnDisk

GENERATOR = np.random.default_rng(6)
PATTERNS = GENERATOR.poisson(9.0, (12, 6, 6)).astype(np.float32)
POINTS = GENERATOR.uniform(0, 20, (12, 2))


def data(path: Path, **more: Any) -> HDF5Diffraction:
    given = {"patterns": "data", "positions": "points", "positions_unit": "pixels", "zero_frequency": "corner"}
    return HDF5Diffraction(path=path, **{**given, **more})


def master(folder: Path, *, virtual: bool) -> Path:
    """Write two data files with half of the patterns each, and a file that leads to them."""
    halves = (PATTERNS[:6], PATTERNS[6:])
    for number, half in enumerate(halves):
        with h5py.File(folder / f"data_{number}.h5", "w") as file:
            file["entry/data"] = half
    layout = h5py.VirtualLayout((12, 6, 6), "f4")
    with h5py.File(folder / "master.h5", "w") as file:
        file["points"] = POINTS
        for number in (0, 1):
            file[f"entry/data_{number}"] = h5py.ExternalLink(f"data_{number}.h5", "/entry/data")
            layout[6 * number : 6 * number + 6] = h5py.VirtualSource(f"data_{number}.h5", "entry/data", (6, 6, 6))
        if virtual:
            file.create_virtual_dataset("data", layout)
    return folder / "master.h5"


# ---- links ----------------------------------------------------------------------------------------------------------


def test_links_inside_a_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/real/data"], file["points"] = PATTERNS, POINTS
        file["entry/link"] = h5py.SoftLink("real")  # from the group in which it stands
        file["again"] = h5py.SoftLink("/entry/link")
        file["data"] = h5py.SoftLink("/again/data")
    np.testing.assert_array_equal(data(tmp_path / "scan.h5").read().intensities_NYX[:], PATTERNS)


def test_a_virtual_dataset_of_the_same_file_is_read(tmp_path):
    layout = h5py.VirtualLayout((12, 6, 6), "f4")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["parts/a"], file["parts/b"], file["points"] = PATTERNS[:5], PATTERNS[5:], POINTS
        layout[:5] = h5py.VirtualSource(".", "parts/a", (5, 6, 6))
        layout[5:] = h5py.VirtualSource(".", "parts/b", (7, 6, 6))
        file.create_virtual_dataset("data", layout)
    np.testing.assert_array_equal(data(tmp_path / "scan.h5").read().intensities_NYX[:], PATTERNS)


@pytest.mark.parametrize("virtual", [True, False])
def test_files_that_the_recipe_names_are_read_and_no_others(tmp_path, virtual):
    path = master(tmp_path, virtual=virtual)
    name = "data" if virtual else "entry/data_1"
    expected = PATTERNS if virtual else PATTERNS[6:]
    both = (tmp_path / "data_0.h5", tmp_path / "data_1.h5")
    np.testing.assert_array_equal(HDF5File(path, linked=both).array(name), expected)
    for linked in ((), both[:1]):
        with pytest.raises(DataError, match=r'data_\d.h5", which the recipe does not name.*linked_files = \['):
            HDF5File(path, linked=linked).array(name)
    (tmp_path / "data_1.h5").unlink()
    with pytest.raises(DataError, match=r"there is no file .*data_1.h5 \(data.linked_files\)"):
        HDF5File(path, linked=both).array(name)


def test_a_file_that_is_named_names_no_further_ones(tmp_path):
    master(tmp_path, virtual=False)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = h5py.ExternalLink("master.h5", "entry/data_0")
    with pytest.raises(DataError, match=r'"data_0.h5", which the recipe does not name'):
        HDF5File(tmp_path / "scan.h5", linked=(tmp_path / "master.h5",)).array("data")


def test_a_virtual_dataset_must_not_declare_what_its_parts_do_not_hold(tmp_path):
    layout = h5py.VirtualLayout((10**6, 1000, 1000), "f4")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["part"] = PATTERNS
        layout[:12, :6, :6] = h5py.VirtualSource(".", "part", (12, 6, 6))
        file.create_virtual_dataset("data", layout)
    with pytest.raises(DataError, match=r"declares 4,000,000,000,000 bytes, but the datasets .* hold 1,728"):
        HDF5File(tmp_path / "scan.h5").stored("data")


# ---- Matlab ---------------------------------------------------------------------------------------------------------


def matlab(array: np.ndarray) -> np.ndarray:
    """Return an array as Matlab 7.3 writes it: axes reversed, complex numbers as pairs."""
    pairs = np.empty(array.T.shape, [("real", "<f8"), ("imag", "<f8")])
    pairs["real"], pairs["imag"] = array.T.real, array.T.imag
    return pairs


PROBE = GENERATOR.normal(size=(3, 6, 6, 2)) @ [1, 1j]


def test_matlab_s_complex_numbers_are_read_and_the_order_of_its_axes_is_asked_for(tmp_path):
    with h5py.File(tmp_path / "scan.mat", "w") as file:
        file["data"], file["points"] = PATTERNS.transpose(0, 2, 1), POINTS.T
        file["probe"] = matlab(PROBE.transpose(1, 2, 0))  # Matlab held (rows, columns, modes)
    said = [each for each in inspected(data(tmp_path / "scan.mat", probe="probe")) if "Matlab" in each]
    assert len(said) == 1
    advised = re.search(r'probe_axes = "(\w+)" if Matlab held \(rows, columns, modes\)', said[0])
    assert advised is not None
    recording = data(tmp_path / "scan.mat", probe="probe", probe_axes=advised[1], pattern_axes="nxy").read()
    np.testing.assert_array_equal(recording.intensities_NYX[:], PATTERNS)
    assert recording.scan.probe_MYX is not None
    np.testing.assert_allclose(recording.scan.probe_MYX, PROBE)


@pytest.mark.parametrize(
    ("axes", "stored"),
    [("myx", PROBE), ("yxm", PROBE.transpose(1, 2, 0)), ("xym", PROBE.T), ("xy", PROBE[0].T), ("xym", PROBE[0].T)],
)
def test_a_probe_s_axes_may_stand_in_any_order(tmp_path, axes, stored):
    from trainkit_ptychography.probes.from_file_live import read_probe

    np.save(tmp_path / "probe.npy", stored)
    settings = ProbeFromFile(path=tmp_path / "probe.npy", axes=axes)
    np.testing.assert_array_equal(read_probe(settings, (6, 6)), PROBE if stored.ndim == 3 else PROBE[:1])


def test_the_look_at_the_data_opens_the_probe_and_says_how_its_axes_are_taken(tmp_path):
    with h5py.File(tmp_path / "probe.h5", "w") as file:
        file["probe"] = matlab(PROBE)
    settings = ProbeFromFile(path=tmp_path / "probe.h5")
    with pytest.raises(DataError, match=r"looks like 6 × 6 pixels and 3 modes.*model.probe.axes = \"yxm\", or \"xym\""):
        list(settings.inspect(None, "all"))  # type: ignore[arg-type]
    said = list(attrs.evolve(settings, axes="xym").inspect(None, "all"))  # type: ignore[arg-type]
    assert len(said) == 1
    assert "3 modes of 6 × 6 pixels" in str(said[0])
    with h5py.File(tmp_path / "pair.h5", "w") as file:
        file["probe"] = matlab(PROBE[0])
    line, doubt = attrs.evolve(settings, path=tmp_path / "pair.h5").inspect(None, "all")  # type: ignore[arg-type]
    assert "its axes are taken as (modes, rows, columns)" in str(line)
    assert isinstance(doubt, Problem)
    assert "Matlab" in doubt.message
    (tmp_path / "probe.h5").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"probe\.h5"):
        list(settings.inspect(None, "all"))  # type: ignore[arg-type]


# ---- what is not used, and what is no HDF5 file ---------------------------------------------------------------------


def test_a_mask_that_nobody_named_is_pointed_out(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"], file["points"] = PATTERNS, POINTS
        file["detector/pixel_mask"] = np.eye(6, dtype="u4")
    assert any(
        'mask that is not used, detector/pixel_mask, with 6 pixels: use it, prepare = { mask = "detector/pixel_mask" }'
        in each
        for each in inspected(data(tmp_path / "scan.h5"))
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("old.mat", b"MATLAB 5.0 MAT-file, Platform".ljust(600), "Matlab file of before version 7.3: .*-v7.3"),
        ("scan.dm4", b"\x00\x00\x00\x04".ljust(600), "Gatan DigitalMicrograph .*use = .rosettasciio."),
        ("scan.mib", b"MQ1,000001,00384,01,0256".ljust(600), "Merlin/Medipix"),
        ("scan.h5", b"MQ1,000001,00384,01,0256".ljust(600), "cannot be read as an HDF5 file"),
        ("scan.h5", b"", "is empty"),
        ("scan.h5", b"\x93NUMPY\x01\x00", 'say use = "diffraction_numpy"'),
        ("scan.h5", b"<!DOCTYPE html><html>", "a web page"),
        ("scan.h5", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("scan.raw", bytes(700), "raw numbers without a header: .*reader = { use = .raw."),
        ("scan.tif", b"II\x2a\x00".ljust(600), "a TIFF image"),
        ("scan.ser", b"II\x97\x01".ljust(600), "TIA"),
    ],
)
def test_a_file_of_another_program_is_known_by_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        HDF5File(tmp_path / name)


def test_folders_are_said_to_be_such(tmp_path):
    (tmp_path / "scan.zarr").mkdir()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="a zarr store, a folder"):
        HDF5File(tmp_path / "scan.zarr")
    with pytest.raises(DataError, match="is a folder, not a file"):
        HDF5File(tmp_path / "folder")


# ---- files that could hurt ------------------------------------------------------------------------------------------


def quickly(path: Path, name: str, said: str) -> str:
    start = time.process_time()
    file = HDF5File(path)
    with pytest.raises(DataError, match=said) as caught, file.reading():
        file.array(name)
    assert time.process_time() - start < 1.0
    return str(caught.value)


def test_zeros_that_unpack_to_gigabytes_are_refused_at_once(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        bomb = file.create_dataset("data", (2000, 256, 256), "u2", chunks=(50, 256, 256), compression="gzip")
        for start in range(0, 2000, 50):
            bomb[start : start + 50] = 0
    quickly(tmp_path / "bomb.h5", "data", r"takes .* in the file and 250 MiB unpacked, and wherever it was looked at")


def test_thousands_of_objects_are_not_all_listed(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w", libver="latest") as file:
        at: Any = file
        for _ in range(3000):
            at = at.create_group("g")
    assert len(quickly(tmp_path / "many.h5", "data", "has no dataset")) < 10_000
    quickly(tmp_path / "many.h5", "g/" * 5000, "is too long; 1000 are read")


def test_escape_codes_in_names_do_not_reach_the_terminal(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["\x1b[2Jdata"] = PATTERNS
    said = quickly(tmp_path / "scan.h5", "data", "has no dataset")
    assert "\x1b" not in said
    assert "\\u001b[2Jdata" in said


def test_problems_of_a_probe_s_axes_are_found_without_the_file():
    problems = list(ProbeFromFile(path=Path("nix.h5"), axes="yy").problems(None))  # type: ignore[arg-type]
    assert [each.key for each in problems if isinstance(each, Problem)] == ["axes"]


# ---- what lies in one stretch of a file ---------------------------------------------------------------------------


def _written(path: Path, kind: str) -> NDArray[Any]:
    """Write patterns (3, 4, 6, 6) in one of several ways, and return them."""
    of_other = {"big endian": ">f4", "numbers": "<u2", "halves": "<f2"}
    values = PATTERNS.reshape(3, 4, 6, 6).astype(of_other.get(kind, "<f4"))
    with h5py.File(path, "w", userblock_size=512 if kind == "user block" else 0) as file:
        file["before"] = np.arange(7)
        if kind == "chunks":
            file.create_dataset("data", data=values, chunks=(1, 2, 6, 6))
        elif kind == "compact":
            place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            place.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(values.shape)
            made = h5py.h5d.create(file.id, b"data", h5py.h5t.py_create(values.dtype), space, place)
            h5py.Dataset(made)[...] = values
        elif kind == "15 bits":
            values = values.astype("<u2")
            fifteen = h5py.h5t.STD_U16LE.copy()
            fifteen.set_precision(15)
            made = h5py.h5d.create(file.id, b"data", fifteen, h5py.h5s.create_simple(values.shape))
            h5py.Dataset(made).id.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))
        else:
            file["data"] = values
        file["points"] = POINTS
    return values


@pytest.mark.parametrize(
    ("kind", "direct"),
    [
        *[(kind, True) for kind in ("plain", "big endian", "numbers", "halves")],
        *[(kind, False) for kind in ("user block", "chunks", "compact", "15 bits")],
    ],
)
def test_values_in_one_stretch_of_the_file_are_read_past_hdf5_and_are_the_same(tmp_path, kind, direct):
    values = _written(tmp_path / "scan.h5", kind)
    file = HDF5File(tmp_path / "scan.h5")
    stored = file.stored("data")
    assert isinstance(stored, OnDisk) is direct
    np.testing.assert_array_equal(np.asarray(stored[0:3]), values)
    np.testing.assert_array_equal(file.array("data"), values)
    frames = data(tmp_path / "scan.h5").read().intensities_NYX
    for points in (np.array([7, 2, 2, 11]), slice(2, 9), np.arange(12)):
        np.testing.assert_array_equal(frames[points], values.reshape(-1, 6, 6)[points].astype(np.float32))
    with pytest.raises(DataError, match="cannot be read"):
        frames[np.array([3, 12])]


def test_a_file_that_is_cut_off_while_it_is_in_use_is_noticed(tmp_path):
    _written(tmp_path / "scan.h5", "plain")
    frames = data(tmp_path / "scan.h5").read().intensities_NYX
    whole = (tmp_path / "scan.h5").read_bytes()
    (tmp_path / "scan.h5").write_bytes(whole[: whole.index(PATTERNS[4].tobytes())])  # the same file, which is open
    with pytest.raises(DataError, match="was changed while it was in use"):
        frames[np.array([3, 1])]
