"""NumPy files that could hurt: each is refused within a second, in one sentence."""

from __future__ import annotations

import bz2
import io
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit import DataError
from trainkit_ptychography.scans.files.numpy_live import NumPyFile
from trainkit_ptychography.scans.files.single_array import read_array


def header(text: bytes, version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def archive(path: Path, content: Any, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file, file.open("data.npy", "w", force_zip64=True) as member:
        for part in content:
            member.write(part)
    return path


def refused(path: Path, said: str) -> None:
    start = time.process_time()
    with pytest.raises(DataError, match=said):  # noqa: PT012  # opening and reading may both refuse
        file = NumPyFile(path)
        with file.reading():
            file.array("data")
    assert time.process_time() - start < 1.0


ZEROS = header(b"{'descr': '<u2', 'fortran_order': False, 'shape': (1250, 256, 256), }")


@pytest.mark.slow
@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zeros_that_unpack_to_gigabytes_are_refused(tmp_path, packing):
    path = archive(tmp_path / "bomb.npz", [ZEROS, *[bytes(2**24)] * 10], packing)  # 160 MiB
    assert path.stat().st_size < 10**6
    refused(path, r"takes .* in the file and 160 MiB unpacked, and wherever it was looked at it is (0|nothing)")


@pytest.mark.slow
def test_zeros_packed_as_a_whole_are_refused(tmp_path):
    packer = bz2.BZ2Compressor()
    content = b"".join([packer.compress(bytes(2**24)) for _ in range(6)] + [packer.flush()])
    (tmp_path / "bomb.npz.bz2").write_bytes(content)
    refused(tmp_path / "bomb.npz.bz2", "unpacks to more than .*, which is hardly more than one value")


@pytest.mark.slow
def test_few_counts_are_read_however_well_they_pack(tmp_path):
    sparse = np.zeros((600, 256, 256), np.uint8)
    sparse[np.arange(600), np.arange(600) % 256, 7] = 1
    np.savez_compressed(tmp_path / "sparse.npz", data=np.concatenate([sparse] * 4))
    assert (tmp_path / "sparse.npz").stat().st_size < 157286400 / 200
    assert NumPyFile(tmp_path / "sparse.npz").array("data").sum() == 2400


def test_a_header_that_does_not_end_is_not_read(tmp_path):
    long = [header(b"", 2)[:8] + struct.pack("<I", 2**31), *[b" " * 2**20] * 64]
    refused(archive(tmp_path / "long.npz", long), "has a header of 2,147,483,648 bytes")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }", r"declares the shape \(-1, 4\)"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (9" + b"9" * 40 + b",), }", "declares 399,999"),
        (b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }", "holds objects of Python"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 99 + b"), }", "which no array has"),
        (b"[" * 5000, "cannot be read as a NumPy archive"),
        (b"__import__('os').system('true')", "cannot be read as a NumPy archive"),
    ],
)
def test_a_header_that_says_something_impossible_is_refused(tmp_path, text, said):
    refused(archive(tmp_path / "odd.npz", [header(text), bytes(64)], zipfile.ZIP_STORED), said)


def test_an_archive_of_a_million_members_is_not_listed(tmp_path):
    record = b"PK\x01\x02" + bytes(42)
    content = io.BytesIO()
    content.write(record * 200_000)
    content.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 200_000 * len(record), 0, 0))
    (tmp_path / "many.npz").write_bytes(b"PK\x03\x04" + content.getvalue())
    refused(tmp_path / "many.npz", "lists 65,535 members or more")


def test_escape_codes_in_names_do_not_reach_the_terminal(tmp_path):
    np.savez(tmp_path / "scan.npz", **{"\x1b[2Jdat": np.ones(3)})
    with pytest.raises(DataError, match="has no array") as caught:
        NumPyFile(tmp_path / "scan.npz").array("data")
    assert "\x1b" not in str(caught.value)


def test_a_file_of_one_array_is_read_with_the_same_care(tmp_path):
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 1024), }"
    (tmp_path / "probe.npy").write_bytes(header(text) + bytes(64))
    with pytest.raises(DataError, match="declares 4,398,046,511,104 bytes, but only"):
        read_array(tmp_path / "probe.npy", "", "model.probe.path")
    path = archive(tmp_path / "odd.npz", [header(text), bytes(64)], zipfile.ZIP_STORED)
    with pytest.raises(DataError, match="declares 4,398,046,511,104 bytes, but only"):
        read_array(path, "data", "model.probe.path")
