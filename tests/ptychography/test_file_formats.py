"""Readers: a format that a third party adds with one file, and those that are here."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from trainkit import RecipeError, component
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.files.readers.kind import Reader
from trainkit_ptychography.scans.scan import Recording, Scan

GENERATOR = np.random.default_rng(11)
PATTERNS = GENERATOR.integers(0, 50, (12, 10, 8)).astype(np.uint16)
POSITIONS = GENERATOR.uniform(0, 20, (12, 2))

RECIPE = """
trainkit = 1
[run]
name = "read"
epochs = 1
[data]
use = "diffraction_file"
{data}
[model]
use = "single_slice_ptychography"
probe = {{ use = "aperture" }}
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
"""


@component
class TextReader(Reader):
    """Text files: shape, positions and counts, a row each; they say all that there is to say."""

    says_geometry = True

    def read(self, settings: FileDiffraction) -> Recording:
        """Read the text."""
        shape, points, counts = (line.split() for line in settings.path.read_text().splitlines())
        patterns_NYX = np.array(counts, dtype=np.float32).reshape([int(size) for size in shape])
        points_N2 = np.array(points, dtype=np.float64).reshape(-1, 2)
        return Recording(patterns_NYX, Scan(positions_N2=points_N2, source=str(settings.path)))


def read(folder: Path, data: str) -> Recording:
    recipe = resolve_text(RECIPE.format(data=data), folder).recipe
    assert isinstance(recipe.data, FileDiffraction)
    return recipe.data.read()


def test_a_third_party_adds_a_format_with_one_class(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    lines = (PATTERNS.shape, POSITIONS.ravel(), PATTERNS.ravel())
    (tmp_path / "scan.txt").write_text("\n".join(" ".join(map(str, line)) for line in lines))
    found = read(tmp_path, 'path = "scan.txt"\nreader = { use = "ptychography.test_file_formats:TextReader" }')
    assert np.array_equal(found.intensities_NYX[:], PATTERNS)
    assert np.array_equal(found.scan.positions_N2, POSITIONS)


@pytest.mark.parametrize("reader", ["hdf5", "numpy"])
def test_a_reader_gives_what_the_component_of_its_format_gives(reader, tmp_path):
    if reader == "hdf5":
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            file["data"], file["scan"] = PATTERNS, POSITIONS
    else:
        np.savez(tmp_path / "scan.npz", data=PATTERNS, scan=POSITIONS)
    name = {"hdf5": "scan.h5", "numpy": "scan.npz"}[reader]
    said = {"patterns": "data", "positions": "scan", "pixel_size_angstrom": [0.3, 0.3], "energy_kev": 80.0}
    data = "\n".join(f"{key} = {value!r}" for key, value in said.items())
    found = read(tmp_path, f'path = "{name}"\npositions_unit = "angstrom"\nreader = {{ use = "{reader}" }}\n{data}')
    own = {"hdf5": HDF5Diffraction, "numpy": NumPyDiffraction}[reader]
    expected = own(
        path=tmp_path / name, positions_unit="angstrom", **{**said, "pixel_size_angstrom": (0.3, 0.3)}
    ).read()
    assert np.array_equal(found.intensities_NYX[:], expected.intensities_NYX[:])
    np.testing.assert_allclose(found.scan.positions_N2, POSITIONS / 0.3)
    assert np.array_equal(found.scan.positions_N2, expected.scan.positions_N2)
    assert found.scan.wavelength_angstrom == expected.scan.wavelength_angstrom


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('positions = "scan"\npositions_unit = "pixels"', "patterns must name the array"),
        ('patterns = "data"\npositions_unit = "pixels"', "either positions names a dataset, or raster"),
        ('patterns = "data"\npositions = "scan"', "need pixel_size_angstrom or dk_per_angstrom"),
        ("", "patterns must name the array"),
    ],
)
def test_what_a_format_does_not_say_the_recipe_must(data, said, tmp_path):
    with pytest.raises(RecipeError, match=said):
        resolve_text(RECIPE.format(data=f'path = "scan.h5"\nreader = {{ use = "hdf5" }}\n{data}'), tmp_path)


def test_a_reader_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(RecipeError, match='did you mean "hdf5"'):
        resolve_text(RECIPE.format(data='path = "scan.h5"\nreader = { use = "hdf" }'), tmp_path)
