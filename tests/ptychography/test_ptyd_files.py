"""ptypy's prepared data: chunks, weights, and what its meta says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trainkit import DataError
from trainkit_ptychography.physics.optics import photon_wavelength
from trainkit_ptychography.scans.files.any_format import AnyFormatDiffraction
from trainkit_ptychography.scans.files.readers.ptyd import PtydReader

GENERATOR = np.random.default_rng(8)
PATTERNS = GENERATOR.poisson(9.0, (12, 8, 8)).astype(np.uint16)
POINTS = GENERATOR.uniform(0, 2e-6, (12, 2))  # m
WEIGHTS = GENERATOR.random((12, 8, 8)) > 0.1
PARTS = (0, 5, 6, 12)
OBJECT_PIXEL = photon_wavelength(6.2) * 2.0 / (8 * 100e-6)  # Å: wavelength · distance / (pixels · pixel)


def write(folder: Path, weights: bool = True, linked: bool = False) -> Path:
    path = folder / "scan.ptyd"
    with h5py.File(path, "w") as file:
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = 6.2, 2.0, [100e-6, 100e-6]
        file["meta/center"], file["meta/label"] = [3.9, 4.2], "scan00"
        for number in reversed(range(3)):
            part = slice(PARTS[number], PARTS[number + 1])
            with h5py.File(folder / f"scan.ptyd.part{number:03d}", "w") as own:
                for place in (own, file.create_group(f"chunks/{number}")) if not linked else (own,):
                    place["data"], place["positions"] = PATTERNS[part], POINTS[part]
                    place["indices"] = np.arange(part.start, part.stop)
                    if weights:
                        place["weights"] = WEIGHTS[part]
            if linked:
                file[f"chunks/{number}"] = h5py.ExternalLink(f"scan.ptyd.part{number:03d}", "/")
    return path


def ptyd(path: Path, **settings: Any) -> AnyFormatDiffraction:
    linked = settings.pop("linked_files", ())
    return AnyFormatDiffraction(path=path, reader=PtydReader(linked_files=linked), **settings)


def test_chunks_are_joined_and_the_file_says_all_the_rest(tmp_path):
    found = ptyd(write(tmp_path)).read()
    centred = np.fft.ifftshift(np.where(WEIGHTS, PATTERNS, np.nan), axes=(1, 2))  # [3.9, 4.2] is [4, 4]
    np.testing.assert_array_equal(found.intensities_NYX[:], centred)
    assert found.scan.pixel_size_angstrom == pytest.approx(OBJECT_PIXEL)
    np.testing.assert_allclose(found.scan.positions_N2, POINTS * 1e10 / OBJECT_PIXEL)
    assert not found.scan.doubts


def test_the_recipe_takes_precedence(tmp_path):
    told = {"energy_kev": 8.0, "radiation": "photons", "zero_frequency": "corner"}
    found = ptyd(write(tmp_path, weights=False), **told).read()
    np.testing.assert_array_equal(found.intensities_NYX[:], PATTERNS)
    assert found.scan.wavelength_angstrom == pytest.approx(photon_wavelength(8.0))
    assert not found.scan.frame_masks


def test_chunks_in_other_files_are_read_if_the_recipe_names_them(tmp_path):
    path = write(tmp_path, linked=True)
    with pytest.raises(DataError, match="which the recipe does not name"):
        ptyd(path).read()
    own = tuple(tmp_path / f"scan.ptyd.part{number:03d}" for number in range(3))
    assert ptyd(path, linked_files=own).read().intensities_NYX.shape == (12, 8, 8)


def test_a_chunk_that_is_missing_is_not_passed_over(tmp_path):
    path = write(tmp_path)
    with h5py.File(path, "a") as file:
        del file["chunks/1"]
    with pytest.raises(DataError, match="chunks/1 is missing, but chunks/2 is there"):
        ptyd(path).read()
    with h5py.File(path, "a") as file:
        del file["chunks/0"]
    with pytest.raises(DataError, match="no prepared data of ptypy"):
        ptyd(path).read()


def test_fewer_patterns_than_the_file_announces_are_doubted(tmp_path):
    path = write(tmp_path)
    with h5py.File(path, "a") as file:
        file["meta/num_frames"] = 12
    assert not ptyd(path).read().scan.doubts
    with h5py.File(path, "a") as file:
        del file["chunks/2"]
    (doubt,) = ptyd(path).read().scan.doubts
    assert doubt.startswith("meta/num_frames says 12 patterns, but its chunks hold 6: the last ones are missing")
