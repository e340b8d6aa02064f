"""MATLAB's files of level 5 (versions 5 to 7), and through the same reader those of 7.3."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from trainkit import DataError
from trainkit_ptychography.scans.files.any_format import AnyFormatDiffraction
from trainkit_ptychography.scans.files.matlab_live import MATFile
from trainkit_ptychography.scans.files.readers.matlab import MATLABReader
from trainkit_ptychography.scans.scan import checked

GENERATOR = np.random.default_rng(6)
PATTERNS = GENERATOR.poisson(9.0, (12, 8, 10)).astype(np.uint16)
POINTS = GENERATOR.uniform(0, 20, (12, 2))
PROBE = (GENERATOR.normal(size=(3, 8, 10, 2)) @ [1, 1j]).astype(np.complex64)


def matlab(path: Path, **settings: Any) -> AnyFormatDiffraction:
    told = {"patterns": "dp", "positions": "pos", "positions_unit": "pixels", "zero_frequency": "corner"}
    return AnyFormatDiffraction(path=path, reader=MATLABReader(), **{**told, **settings})


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    arrays = {"dp": PATTERNS.transpose(1, 2, 0), "pos": POINTS, "probe": PROBE.transpose(1, 2, 0), "note": "text"}
    scipy.io.savemat(tmp_path / "scan.mat", arrays, do_compression=True)
    return tmp_path / "scan.mat"


def test_arrays_and_complex_numbers_of_level_5_are_read(scan):
    found = checked(matlab(scan, pattern_axes="yxn", probe="probe", probe_axes="yxm").read())
    np.testing.assert_array_equal(found.intensities_NYX[:], PATTERNS)
    np.testing.assert_array_equal(found.scan.positions_N2, POINTS)
    np.testing.assert_array_equal(found.scan.probe_MYX, PROBE)


def test_level_5_and_7_3_give_the_same_scan(scan):
    with h5py.File(scan.parent / "new.mat", "w", userblock_size=512) as file:  # axes are reversed in 7.3
        file["dp"], file["pos"] = PATTERNS.transpose(0, 2, 1), POINTS.T
    with (scan.parent / "new.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    old, new = matlab(scan, pattern_axes="yxn").read(), matlab(scan.parent / "new.mat", pattern_axes="nxy").read()
    np.testing.assert_array_equal(old.intensities_NYX[:], new.intensities_NYX[:])
    np.testing.assert_array_equal(old.scan.positions_N2, new.scan.positions_N2)


def test_the_order_of_axes_is_asked_for_and_not_guessed(scan):
    with pytest.raises(DataError, match='pattern_axes = "yxn" if MATLAB held'):
        matlab(scan).read()
    with pytest.raises(DataError, match='probe_axes = "yxm" if MATLAB held'):
        matlab(scan, pattern_axes="yxn", probe="probe").read()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dpp", r'no array "dpp"; did you mean "dp"\?\nIt holds:\n  dp \(8, 10, 12\)'),
        ("note", "of MATLAB's class char"),
    ],
)
def test_an_array_that_is_not_there_or_holds_no_numbers_is_named(scan, name, said):
    with pytest.raises(DataError, match=said):
        matlab(scan, pattern_axes="yxn", patterns=name).read()


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"MATLAB 5.0 MAT-file".ljust(128), b"no file of MATLAB" * 20])
def test_what_is_no_file_of_matlab_is_refused(tmp_path, content):
    (tmp_path / "scan.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"scan\.mat"):
        matlab(tmp_path / "scan.mat", pattern_axes="yxn").read()


def _element(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(4, "little") + len(content).to_bytes(4, "little") + content + bytes(-len(content) % 8)


def forged(path: Path, shape: tuple[int, int, int], num_bytes: int) -> None:
    """Write a file whose one array declares a shape, and holds that many packed zeros."""
    flags = _element(6, (9).to_bytes(4, "little") + bytes(4))  # numbers of 8 bits without sign
    sizes = _element(5, b"".join(size.to_bytes(4, "little") for size in shape))
    inner = flags + sizes + _element(1, b"dp")
    packer = zlib.compressobj(9)
    whole = (14).to_bytes(4, "little") + (len(inner) + 8 + num_bytes).to_bytes(4, "little") + inner
    packed = packer.compress(whole + (2).to_bytes(4, "little") + num_bytes.to_bytes(4, "little"))
    for _ in range(num_bytes // 2**20):
        packed += packer.compress(bytes(2**20))
    packed += packer.flush()
    head = b"MATLAB 5.0 MAT-file, forged".ljust(124) + b"\x00\x01IM"
    path.write_bytes(head + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)


@pytest.mark.parametrize(
    ("shape", "num_bytes", "said"),
    [
        ((40_000, 40_000, 40_000), 2**20, "more than a file of .* bytes can hold"),
        ((1024, 1024, 256), 2**28, "wherever it was looked at it is 0: it was never written, or is made to do harm"),
    ],
)
def test_a_small_file_that_unpacks_to_nothing_is_refused_at_once(tmp_path, shape, num_bytes, said):
    forged(tmp_path / "bomb.mat", shape, num_bytes)
    assert (tmp_path / "bomb.mat").stat().st_size < 2**20
    began = time.process_time()
    with pytest.raises(DataError, match=said):
        MATFile(tmp_path / "bomb.mat").array("dp")
    assert time.process_time() - began < 1
