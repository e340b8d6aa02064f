"""What a run leaves for others: pictures with scale bars, TIFFs for ImageJ, a probe for the next run to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import tifffile
import torch

from trainkit import Context, DataError, Monitor, State
from trainkit_ptychography.models.single_slice import SingleSlice
from trainkit_ptychography.models.single_slice_live import SingleSliceModule
from trainkit_ptychography.output import pictures
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.from_file import ProbeFromFile
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SMALL = SimulatedDiffraction(scan_shape=(6, 5), detector_size=24)
GENERATOR = np.random.default_rng(2)


def made(modes: int = 1) -> tuple[Any, SingleSliceModule]:
    data = SMALL.build(Context(0, torch.device("cpu"), 0, 1, Path()))
    model = SingleSlice(probe=Aperture(modes=modes)).build(data)
    assert isinstance(model, SingleSliceModule)
    return data, model


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_show_the_object_the_probe_and_the_positions():
    data, model = made(modes=2)
    with torch.no_grad():
        model.object.maps[0] = torch.linspace(0, 1, model.object.maps.shape[2])
    state = State(Context(0, torch.device("cpu"), 0, 1, Path()), 2, model, data, {}, Monitor())
    model.on_picture(state)
    assert set(state.pictures) == {"object_phase", "object_amplitude", "object", "probe", "positions"}
    phase = state.pictures["object_phase"].astype(int)
    shown = phase[0, : np.flatnonzero(phase[0, :, 0])[-1] + 1, 0]  # what is narrow stands on black
    assert (np.diff(shown) >= 0).all()  # brighter where the phase is larger
    assert phase.min() == 0
    assert phase.max() == 255


@pytest.mark.parametrize("shape", [(7, 5), (24, 24), (30, 90), (700, 400)])
def test_small_arrays_are_enlarged_by_a_whole_factor_so_pixels_stay_square_and_nothing_is_hidden(shape):
    values = GENERATOR.random(shape)
    image = pictures.grey(values, 0.4, "rad")
    factor = max(1, round(384 / max(shape)))
    shown = image[: factor * shape[0], : factor * shape[1], 0].reshape(shape[0], factor, shape[1], factor)
    assert (shown == shown[:, :1, :, :1]).all()  # every pixel is a square of one shade
    order = values.argsort(axis=None)
    assert (np.diff(shown[:, 0, :, 0].ravel()[order].astype(int)) >= 0).all()
    assert min(image.shape[:2]) >= 380 or factor == 1 or shape == (30, 90)


def longest_run(row_X: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row_X.astype(int), [0]])))
    return max((stop - start for start, stop in zip(edges[::2], edges[1::2], strict=True)), default=0)


@pytest.mark.parametrize(("size", "expected"), [(0.4, 25.0), (None, 20.0)])
def test_the_bar_that_is_drawn_has_the_length_that_is_written(size, expected):
    image = pictures.grey(GENERATOR.random((96, 96)), size, "")  # 4 times enlarged; 10 Å are 25 pixels of 0.4 Å
    footer = (image[4 * 96 :] == 255).all(axis=2)
    assert max(longest_run(row) for row in footer) == 4 * expected


def test_hue_is_the_phase_and_brightness_the_magnitude():
    phases = np.exp(2j * np.pi * np.array([[0.0, 1 / 3, 2 / 3, 0.0]])) * np.array([[1.0, 1.0, 1.0, 0.5]])
    image = pictures.complex_arrays(phases[None], None)
    red, green, blue, dim = (image[0, 96 * place] for place in range(4))
    assert red.argmax() == 0
    assert green.argmax() == 1
    assert blue.argmax() == 2
    np.testing.assert_allclose(dim, red / 2.0, atol=1)
    assert (image[0, 0] == [255, 64, 64]).all()


def test_the_wheel_shows_the_phase_from_the_right_counterclockwise():
    image = pictures.complex_arrays(np.zeros((1, 96, 96), complex), None)
    height, width = image.shape[:2]
    centre = np.array([height - 8 - 30, width - 24 - 30])
    right, above, left, below = (
        image[tuple(centre + 24 * np.array(way))].astype(int) for way in ((0, 1), (-1, 0), (0, -1), (1, 0))
    )
    assert right.argmax() == 0  # phase 0 is red
    assert left.argmin() == 0  # and π its complement
    assert above[1] > above[2]  # π/2 lies towards green, at 2π/3
    assert below[2] > below[1]


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (6, 2, 4)])
def test_modes_stand_four_in_a_row(count, rows, columns):
    image = pictures.complex_arrays(GENERATOR.random((count, 192, 192)) + 0j, None)
    assert image.shape[0] == rows * 384 + 76
    assert image.shape[1] == columns * 384


# ---- TIFF -----------------------------------------------------------------------------------------------------------


def test_imagej_opens_a_map_with_its_values_and_its_pixel_size(tmp_path):
    values = GENERATOR.normal(size=(7, 11)).astype(np.float32)
    write_imagej_tiff(tmp_path / "map.tif", values, 0.4)
    write_imagej_tiff(tmp_path / "pixels.tif", values, None)
    assert len(list(tmp_path.iterdir())) == 2
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        assert file.is_imagej
        assert np.array_equal(file.asarray(), values)
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["unit"] == "angstrom"
        for tag in ("XResolution", "YResolution"):
            pixels, units = file.pages[0].tags[tag].value  # type: ignore[union-attr]
            assert units / pixels == pytest.approx(0.4, rel=1e-6)
    with tifffile.TiffFile(tmp_path / "pixels.tif") as file:
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["unit"] == "pixel"


# ---- a probe from a file --------------------------------------------------------------------------------------------


def saved(folder: Path, kind: str, probe: np.ndarray) -> Path:
    path = folder / f"probe.{kind}"
    if kind == "npy":
        np.save(path, probe)
    elif kind == "npz":
        np.savez(path, probe=probe, other=np.zeros(3))
    else:
        with h5py.File(path, "w") as file:
            file["probe"] = probe
            file["other"] = np.zeros(3)
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_a_probe_comes_out_of_a_file_with_its_modes_and_their_powers(kind, tmp_path):
    data, _ = made()
    probe = GENERATOR.normal(size=(3, 24, 24)) + 1j * GENERATOR.normal(size=(3, 24, 24))
    probe *= np.array([3.0, 1.0, 0.5])[:, None, None]
    path = saved(tmp_path, kind, probe[None])
    assert np.array_equal(ProbeFromFile(path=path).build(data), probe)
    assert np.array_equal(ProbeFromFile(path=path, modes=2).build(data), probe[:2])
    cornered = saved(tmp_path, kind, np.fft.ifftshift(probe, axes=(1, 2)))
    assert np.array_equal(ProbeFromFile(path=cornered, centre="corner").build(data), probe)
    model = SingleSlice(probe=ProbeFromFile(path=path)).build(data)
    assert isinstance(model, SingleSliceModule)
    powers = (np.abs(probe) ** 2).sum((1, 2))
    np.testing.assert_allclose(
        (np.abs(model.reconstruction().probe_MYX) ** 2).sum((1, 2)), powers / powers.sum(), rtol=1e-5
    )


def test_the_probe_of_an_earlier_result_begins_the_next_run(tmp_path):
    data, model = made(modes=2)
    state = State(Context(0, torch.device("cpu"), 0, 1, tmp_path), 2, model, data, {}, Monitor(), ended="finished")
    model.on_run_end(state)
    again = ProbeFromFile(path=tmp_path / "result.h5").build(data)
    np.testing.assert_allclose(again, model.reconstruction().probe_MYX)


@pytest.mark.parametrize(
    ("probe", "settings", "said"),
    [
        (np.ones((24, 20), complex), {}, r"24 × 20 pixels, but the patterns have 24 × 24"),
        (np.ones((24, 24)), {}, "must be complex"),
        (np.zeros((24, 24), complex), {}, "is zero"),
        (np.full((24, 24), np.nan + 0j), {}, "not finite"),
        (np.ones((2, 24, 24), complex), {"modes": 3}, r"has 2 modes; model\.probe\.modes = 3"),
        (np.ones((2, 3, 24, 24), complex), {}, "more than one axis before"),
        (np.ones((24, 24), complex), {"name": "prob"}, 'did you mean "probe"'),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_a_probe_that_does_not_fit_is_one_message(kind, probe, settings, said, tmp_path):
    data, _ = made()
    with pytest.raises(DataError, match=said):
        ProbeFromFile(path=saved(tmp_path, kind, probe), **settings).build(data)


def test_a_probe_file_that_is_missing_damaged_or_of_another_kind_is_one_message(tmp_path):
    data, _ = made()
    with pytest.raises(DataError, match=r"there is no file .*model\.probe\.path"):
        ProbeFromFile(path=tmp_path / "nix.npy").build(data)
    for kind in ("npy", "npz", "h5"):
        path = tmp_path / f"bad.{kind}"
        path.write_bytes(b"nonsense")
        with pytest.raises(DataError, match="cannot be read as"):
            ProbeFromFile(path=path).build(data)
    (problem,) = ProbeFromFile(path=Path("probe.tif")).problems(None)  # type: ignore[arg-type]
    assert "probe.tif" in str(problem)
    assert attrs.fields_dict(ProbeFromFile)["name"].default == "probe"
