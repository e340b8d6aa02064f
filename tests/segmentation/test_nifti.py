"""NIfTI files are read as nibabel reads them, or refused in one sentence before they take time or memory."""

from __future__ import annotations

import bz2
import gzip
import os
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from trainkit import DataError
from trainkit_segmentation.files import images
from trainkit_segmentation.files.images import read_header, read_integers, read_voxels

from .nifti_fuzz import fuzz

SHAPE = (6, 5, 4)


def saved(path: Path, dtype: Any = np.int16, kind: type = nibabel.Nifti1Image, **header: Any) -> Path:
    """Write a file whose header is changed after it is complete."""
    image = kind(np.arange(120).reshape(SHAPE).astype(dtype), np.diag([1.0, 2.0, 3.0, 1.0]), dtype=dtype)
    plain = path.with_name("plain.nii")
    nibabel.save(image, plain)
    content = bytearray(plain.read_bytes())
    raw = type(image.header)(bytes(content[: image.header.sizeof_hdr]), check=False)
    for name, value in header.items():
        raw[name] = value
    content[: image.header.sizeof_hdr] = raw.binaryblock
    packed = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(bytes(content))
    path.write_bytes(packed)
    return path


def refusal(path: Path, read: Any = read_voxels) -> str:
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        read(path)
    assert time.monotonic() - began < 1
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    return told


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "<i4", ">f4", "f8", "i8", "u8"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ", ".nii.bz2"])
def test_files_are_read_as_nibabel_reads_them(tmp_path, kind, dtype, ending):
    path = tmp_path / f"image{ending}"
    values = (np.arange(120).reshape(SHAPE) - 20).astype(dtype)
    nibabel.save(kind(values, np.diag([-1.0, 2.0, 3.0, 1.0]), dtype=np.dtype(dtype)), path)
    header, voxels_CXYZ = read_voxels(path)
    expected = np.asanyarray(nibabel.load(path).dataobj)
    assert np.array_equal(voxels_CXYZ[0], expected.astype(np.float32) if expected.dtype.kind == "f" else expected)
    assert np.array_equal(header.affine, nibabel.load(path).affine)
    assert (header.shape, header.channels, header.corrections) == (SHAPE, 1, ())


def test_scaled_values_and_channels_are_read_as_nibabel_reads_them(tmp_path):
    path = tmp_path / "image.nii.gz"
    image = nibabel.Nifti1Image(np.arange(240, dtype=np.int16).reshape(*SHAPE, 2), np.eye(4))
    image.header.set_slope_inter(0.25, -7)
    nibabel.save(image, path)
    _, voxels_CXYZ = read_voxels(path)
    expected = np.moveaxis(nibabel.load(path).get_fdata(dtype=np.float32), -1, 0)
    assert np.array_equal(voxels_CXYZ, expected)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nii.bz2"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"dim": [3, -6, 5, 4, 1, 1, 1, 1]},
            "expected three dimensions, or four with the channels last, got (-6, 5, 4)",
        ),
        ({"dim": [3, 6, 0, 4, 1, 1, 1, 1]}, "expected three dimensions"),
        ({"dim": [0, 6, 5, 4, 1, 1, 1, 1]}, "expected three dimensions"),
        ({"dim": [2, 6, 5, 4, 1, 1, 1, 1]}, "got (6, 5)"),
        ({"dim": [200, 6, 5, 4, 1, 1, 1, 1]}, "cannot be read as NIfTI"),
        ({"datatype": 77}, "data code 77 not recognized"),
        ({"datatype": 128}, "voxels must be integers or real numbers"),
        ({"datatype": 1792}, "voxels must be integers or real numbers"),
        ({"vox_offset": np.nan}, "the voxels cannot begin at byte nan"),
        ({"vox_offset": 1e30}, "the voxels cannot begin at byte 1e+30"),
        ({"vox_offset": 0}, "the voxels cannot begin at byte 0"),
        ({"vox_offset": 352.5}, "the voxels cannot begin at byte 352.5"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "Valid slope but invalid intercept nan"),
        ({"magic": b"none"}, "the header lacks the mark of the format"),
        ({"magic": b"ni1"}, "header and voxels are in two files"),
        ({"sizeof_hdr": 100}, "does not begin with such a header"),
        ({"srow_x": [np.inf, 0, 0, 0]}, "the header's affine is unusable"),
        ({"srow_y": [0, 1e30, 0, 0]}, "the header's affine is unusable"),
        ({"srow_y": [1, 0, 0, 0]}, "the header's affine is unusable"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 3.0}, "cannot be read as NIfTI"),
    ],
)
def test_a_damaged_header_is_refused_in_one_sentence(tmp_path, changes, told, ending):
    assert told in refusal(saved(tmp_path / f"image{ending}", **changes))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_more_voxels_than_a_file_can_hold_are_refused_before_they_are_read(tmp_path, ending):
    path = saved(tmp_path / f"image{ending}", dim=[3, 32000, 32000, 4, 1, 1, 1, 1])
    for read in (read_header, read_voxels):
        assert "the file is truncated, or its header damaged: it needs 8192000352 bytes" in refusal(path, read)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nii.bz2"])
def test_what_takes_more_memory_than_is_free_is_refused_before_it_is_read(tmp_path, ending, monkeypatch):
    path = saved(tmp_path / f"image{ending}")
    monkeypatch.setattr(images, "free_host_memory", lambda: 500)
    assert "reading it takes 0.703 KiB of memory, and 0.488 KiB are free" in refusal(path)


def test_a_packed_file_that_ends_too_early_or_unpacks_to_more_than_its_header_says_is_refused(tmp_path):
    for ending, pack in ((".nii.gz", gzip.compress), (".nii.bz2", bz2.compress)):
        path = saved(tmp_path / f"image{ending}")
        plain = (tmp_path / "plain.nii").read_bytes()
        path.write_bytes(pack(plain[:-20]))
        assert "the header needs 592 bytes, there are 572" in refusal(path)
        path.write_bytes(pack(plain + bytes(1 << 24)))
        assert "more is packed in it than its header declares (0.234 KiB)" in refusal(path)
        path.write_bytes(pack(plain + bytes(1000)))
        assert np.array_equal(read_voxels(path)[1][0], np.arange(120).reshape(SHAPE))


def test_a_wrong_bit_in_a_packed_file_is_found_by_its_checksum(tmp_path):
    path = saved(tmp_path / "image.nii.gz")
    stored = gzip.compress((tmp_path / "plain.nii").read_bytes(), compresslevel=0)  # as it is: no code can break
    wrong = bytearray(stored)
    wrong[-40] ^= 1
    path.write_bytes(wrong)
    assert "the file is truncated or damaged: CRC check failed" in refusal(path)


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    for path, told in ((tmp_path / "pipe.nii", "no regular file"), (tmp_path, "no regular file")):
        assert told in refusal(path)
    assert "there is no such file" in refusal(tmp_path / "absent.nii.gz")
    (tmp_path / "named.nii").write_bytes(saved(tmp_path / "image.nii.gz").read_bytes())
    assert "it is packed, but its name does not end in .gz" in refusal(tmp_path / "named.nii")


def test_what_is_corrected_in_a_header_is_kept(tmp_path):
    path = saved(tmp_path / "image.nii", sform_code=33)
    assert read_header(path).corrections == ("sform_code 33 not valid; setting to 0",)


def test_numbers_beyond_32_bits_and_infinite_ones_are_refused(tmp_path):
    for value in (1e300, np.inf):
        path = tmp_path / "image.nii"
        array = np.ones(SHAPE)
        array[0, 0, 0] = value
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        assert "1 voxels are infinite, or beyond the range of 32-bit numbers" in refusal(path)


def test_nan_in_a_label_is_not_taken_as_zero(tmp_path):
    array = np.ones(SHAPE, np.float32)
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "label.nii")
    assert refusal(tmp_path / "label.nii", read_integers).endswith("1 of 120 voxels of the label are NaN")


def test_hundreds_of_damaged_headers_are_read_or_refused(tmp_path, capfd):
    outcome = fuzz(600, seed=1, folder=tmp_path)
    assert outcome["refused"] > 100
    assert outcome["read"] > 100
    assert capfd.readouterr() == ("", "")
