"""Label values are whole numbers, exactly, in whatever type and with whatever scale a file stores them."""

from __future__ import annotations

from fractions import Fraction

import nibabel
import numpy as np
import pytest

from trainkit import DataError
from trainkit_segmentation.files.images import read_integers
from trainkit_segmentation.files.whole_numbers import whole_numbers


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1), (-1, 0), (1, -128), (0.5, 0), (0.1, 0)])
def test_scaled_integers_are_the_exact_product(dtype, slope, intercept):
    limits = np.iinfo(dtype)
    stored = np.array([0, 10, 100, limits.min // 4, limits.max // 4], dtype=dtype)
    if isinstance(slope, float):
        stored = stored[:3]  # whose products are whole
    wanted = [int(value) * Fraction(str(slope)) + intercept for value in stored.tolist()]
    values, off = whole_numbers(stored, float(np.float32(slope)), float(intercept))
    assert values.tolist() == wanted
    assert off < 1e-3


def test_values_above_63_bits_stay_apart():
    stored = np.array([0, 2**63, 2**63 + 1, 2**64 - 1], np.uint64)
    assert whole_numbers(stored, None, None)[0].tolist() == stored.tolist()
    assert whole_numbers(stored[1:3], 1.0, -1.0)[0].tolist() == [2**63 - 1, 2**63]
    with pytest.raises(ValueError, match="more than 64 bits"):
        whole_numbers(stored, 2.0, 0.0)
    with pytest.raises(ValueError, match="more than 64 bits"):
        whole_numbers(np.array([0, np.inf], np.float32), None, None)


def test_float64_values_beyond_24_bits_are_not_cut(tmp_path):
    values = np.array([0, 2**24 + 1, 2**40 + 1, -(2**31)], np.float64).reshape(2, 2, 1)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "label.nii.gz")
    assert np.array_equal(read_integers(tmp_path / "label.nii.gz").values_CXYZ[0], values.astype(np.int64))


def test_nearly_whole_values_are_rounded_and_it_is_known_by_how_much():
    values, off = whole_numbers(np.array([0, 1 + 1e-6, 2 - 5e-4], np.float32), None, None)
    assert values.tolist() == [0, 1, 2]
    assert off == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.linspace(0, 2, 200), "it was interpolated, as if it were an image"),
        (
            np.array([0, 0.5, 1, 0.5]),
            "2 of 4 voxels of the label are not whole numbers, for example 0.5: save the label",
        ),
        (np.array([0, np.nan, 1]), "1 of 3 voxels of the label are NaN"),
    ],
)
def test_other_values_are_refused_with_a_way_on(tmp_path, values, told):
    path = tmp_path / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.reshape(-1, 1, 1).astype(np.float32), np.eye(4)), path)
    with pytest.raises(DataError) as caught:
        read_integers(path)
    assert f"{path}: " in str(caught.value)
    assert told in str(caught.value)
