"""What a run leaves for others: TIFFs for ImageJ, a probe for the next run to begin with, residuals."""

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
from trainkit_ptychography.models import output
from trainkit_ptychography.models.output import finish, show_residuals
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.models.residuals import poor_fits, residuals
from trainkit_ptychography.output.imagej_tiff import write_imagej_tiff
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.from_file import ProbeFromFile
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SMALL = SimulatedDiffraction(scan_shape=(6, 5), detector_size=24)
GENERATOR = np.random.default_rng(2)


def finish_with_pictures(model: PtychographyModule, data: Any, state: State) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "show_residuals", show_residuals)  # tests draw nothing unless they ask for it
        finish(model.reconstruction(), data, state, model)


def made(modes: int = 1) -> tuple[Any, PtychographyModule]:
    data = SMALL.build(Context(0, torch.device("cpu"), Path()))
    model = Ptychography(probe=Aperture(modes=modes)).build(data)
    assert isinstance(model, PtychographyModule)
    return data, model


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


def test_the_file_of_a_map_says_which_part_of_it_was_scanned(tmp_path):
    points = np.array([[2.0, 3.0], [4.0, 9.0], [3.0, 5.0]])
    write_imagej_tiff(tmp_path / "map.tif", np.zeros((7, 11), np.float32), 0.4, scanned_N2=points)
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        found = file.imagej_metadata
        assert found is not None
        assert (found["scanned_rows_px"], found["scanned_columns_px"]) == ("2.0 to 4.0", "3.0 to 9.0")
        assert found["unit"] == "angstrom"


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
    model = Ptychography(probe=ProbeFromFile(path=path)).build(data)
    assert isinstance(model, PtychographyModule)
    powers = (np.abs(probe) ** 2).sum((1, 2))
    np.testing.assert_allclose(
        (np.abs(model.reconstruction().probe_MYX) ** 2).sum((1, 2)), powers / powers.sum(), rtol=1e-5
    )


def test_the_probe_of_an_earlier_result_begins_the_next_run(tmp_path):
    data, model = made(modes=2)
    state = State(Context(0, torch.device("cpu"), tmp_path), 2, model, data, {}, Monitor(), ended="finished")
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
        with pytest.raises(DataError, match=r"is no array of NumPy|cannot be read as"):
            ProbeFromFile(path=path).build(data)
    (problem,) = ProbeFromFile(path=Path("probe.tif")).problems(None)  # type: ignore[arg-type]
    assert "probe.tif" in str(problem)
    assert attrs.fields_dict(ProbeFromFile)["name"].default == "probe"


# ---- residuals ------------------------------------------------------------------------------------------------------


def test_a_residual_is_the_share_that_numpy_finds_over_the_pixels_that_count():
    data, model = made()
    masked = torch.ones(data.detector_shape, dtype=torch.bool)
    masked[3:9, 4:11] = False
    for mask_YX in (None, masked):
        data.mask_YX = mask_YX
        found_N = residuals(model, data).of_all_N
        (batch,) = data.some(torch.tensor([7]))
        measured = batch["amplitudes"][0].double().numpy() ** 2
        modelled = model(batch)["intensities"][0].detach().double().numpy()
        off = (np.sqrt(measured) - np.sqrt(modelled)) * (1 if mask_YX is None else mask_YX.numpy())
        assert found_N[7] == pytest.approx(np.sqrt((off**2).sum() / measured.sum()), rel=1e-5)


def test_the_only_pattern_that_another_place_gave_is_named_and_stands_in_the_result(tmp_path, caplog):
    data, model = made()
    model.object.maps.requires_grad_(False)
    with torch.no_grad():  # the model is right, except for one pattern, which shows another place
        for batch in data.some(torch.arange(30)):
            made_NYX = model(batch)["intensities"].sqrt()
    noise = torch.from_numpy(GENERATOR.normal(0, 0.002, made_NYX.shape)).float()
    made_NYX = (made_NYX + noise).clamp_min(0)
    made_NYX[12] = made_NYX[12].roll((5, 3), (0, 1))
    data.some = lambda index: iter([{"index": index, "amplitudes": made_NYX[index]}])
    state = State(Context(0, torch.device("cpu"), tmp_path), 2, model, data, {}, Monitor(), ended="finished")
    with caplog.at_level("WARNING", logger="trainkit"):
        finish_with_pictures(model, data, state)
    assert "1 of 30 patterns are fitted far worse than the others (12;" in caplog.text
    assert set(state.pictures) == {"residuals"}
    with h5py.File(tmp_path / "result.h5") as file:
        assert int(np.argmax(file["residual"])) == 12
        assert file["residual"].shape == (30,)


def test_a_result_is_written_even_if_its_residuals_cannot_be_computed(tmp_path, caplog):
    data, model = made()

    def broken(index: torch.Tensor) -> Any:
        raise RuntimeError("out of memory")

    data.some = broken
    state = State(Context(0, torch.device("cpu"), tmp_path), 2, model, data, {}, Monitor(), ended="finished")
    finish(model.reconstruction(), data, state, model)
    assert "has no residuals: RuntimeError: out of memory" in caplog.text
    with h5py.File(tmp_path / "result.h5") as file:
        assert "object" in file
        assert "residual" not in file


def raster(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2).astype(float)


def test_noise_alone_makes_no_pattern_stand_out():
    for shape in (6.0, 40.0):  # skewed, and nearly normal
        residual = 0.1 + 0.02 * GENERATOR.gamma(shape, size=20000) / np.sqrt(shape)
        assert poor_fits(residual, raster(100, 200)) == []


def test_a_frame_that_failed_stands_out_and_an_atom_that_is_hard_to_fit_does_not():
    rows, columns = np.indices((20, 20))
    atom = 0.3 * np.exp(-((rows - 5) ** 2 + (columns - 12) ** 2) / 8)
    residual = (0.1 + atom + 0.003 * GENERATOR.normal(size=(20, 20))).ravel()
    assert residual[5 * 20 + 12] > 0.35
    assert poor_fits(residual, raster(20, 20)) == []
    residual[[77, 300, 301, 302]] = 0.5, 0.4, 0.41, 0.42  # one frame, and some of a line
    residual[120] = np.nan
    assert poor_fits(residual, raster(20, 20)) == [77, 302, 301, 300]
    assert poor_fits(np.full(400, np.nan), raster(20, 20)) == []
    assert poor_fits(np.array([0.1]), np.zeros((1, 2))) == []
