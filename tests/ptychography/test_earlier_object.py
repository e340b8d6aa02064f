"""Objects that begin with the object of a file: where they lie, what they hold, and what is refused or doubted."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.objects.kind import ObjectGeometry, ObjectPlacement
from trainkit_ptychography.objects.pixels import Pixels
from trainkit_ptychography.output.result import Result, write_result
from trainkit_ptychography.preflight.earlier_object import inspect_earlier_object
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

POSITIONS_N2 = np.argwhere(np.ones((6, 7))) * 2.0 + np.array([40.0, 30.0])
ORIGIN_2, SHAPE = np.array([28.0, 18.0]), (36, 38)


def geometry(pixel_size: float | None = 0.5) -> ObjectGeometry:
    placement = ObjectPlacement(ORIGIN_2, POSITIONS_N2, pixel_size)
    return ObjectGeometry(SHAPE, (16, 16), torch.float64, torch.device("cpu"), 0, placement)


def smooth(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A transmission as a function of the position in Å; its phase goes from 0.1 to 1.3 rad."""
    phase = 0.7 + 0.6 * np.sin(rows[:, None] / 2.1) * np.cos(columns / 1.7)
    return (0.9 + 0.05 * np.cos(rows[:, None] / 3 + columns / 4)) * np.exp(1j * phase)


def of_file(path: Path, size: float, origin_2: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Write `smooth` as our own result with these pixels."""
    rows, columns = ((origin + np.arange(num)) * size for origin, num in zip(origin_2, shape, strict=True))
    none = np.zeros((1, 2))
    write_result(
        path,
        Result(
            object_HW=smooth(rows, columns),
            probe_MYX=np.ones((1, 4, 4), complex),
            positions_N2=none,
            nominal_N2=none,
            held_out_index=np.array([0]),
            affine_23=np.zeros((2, 3)),
            origin_2=origin_2,
            pixel_size_angstrom=size,
            wavelength_angstrom=0.04,
            source="made up",
        ),
    )
    return smooth(rows, columns)


def transmission(settings: Pixels, of: ObjectGeometry | None = None) -> np.ndarray:
    made = settings.build(geometry() if of is None else of)
    return (made.amplitude() * torch.exp(1j * made.phase()))[0].detach().numpy()


def expected() -> np.ndarray:
    return smooth(*((origin + np.arange(num)) * 0.5 for origin, num in zip(ORIGIN_2, SHAPE, strict=True)))


def test_our_own_result_of_another_crop_and_margin_is_laid_where_it_was_to_the_bit(tmp_path):
    stored = of_file(tmp_path / "result.h5", 0.5, ORIGIN_2 - 5, (60, 60))
    found = transmission(Pixels(path=tmp_path / "result.h5"))
    np.testing.assert_allclose(found, stored[5 : 5 + SHAPE[0], 5 : 5 + SHAPE[1]], atol=1e-14)


@pytest.mark.parametrize("size", [0.3, 0.45, 0.8])
def test_pixels_of_another_size_are_resampled(size, tmp_path):
    origin_2 = np.floor(ORIGIN_2 * 0.5 / size) - 4
    of_file(tmp_path / "result.h5", size, origin_2, (110, 110))
    found = transmission(Pixels(path=tmp_path / "result.h5"))
    np.testing.assert_allclose(found, expected(), atol=0.01)


def test_a_plain_array_has_its_first_pixel_at_position_0_or_where_the_recipe_says(tmp_path):
    whole = smooth(np.arange(80) * 0.5, np.arange(80) * 0.5)
    np.save(tmp_path / "guess.npy", whole)
    np.testing.assert_allclose(transmission(Pixels(path=tmp_path / "guess.npy")), expected(), atol=1e-14)
    np.save(tmp_path / "part.npy", whole[20:, 10:])
    found = transmission(Pixels(path=tmp_path / "part.npy", origin_pixels=(20.0, 10.0)))
    np.testing.assert_allclose(found, expected(), atol=1e-14)


def test_phases_are_read_as_such_and_a_phase_only_object_leaves_the_amplitude_out(tmp_path):
    np.save(tmp_path / "phase.npy", np.angle(smooth(np.arange(80) * 0.5, np.arange(80) * 0.5)))
    read = Pixels(path=tmp_path / "phase.npy", holds="phase", kind="phase_only")
    np.testing.assert_allclose(transmission(read), expected() / np.abs(expected()), atol=1e-14)


def test_what_the_file_does_not_cover_is_vacuum_and_that_is_said(tmp_path, caplog):
    of_file(tmp_path / "result.h5", 0.5, ORIGIN_2, (20, 38))
    found = transmission(Pixels(path=tmp_path / "result.h5"))
    np.testing.assert_allclose(np.abs(found[20:]), 1.0)
    assert "% of the scanned area; the rest begins as vacuum" in caplog.text


def test_results_of_ptyrad_and_ptychi_are_laid_by_the_positions_of_their_patterns(tmp_path):
    """PtyRAD 1.0 (io/save.py) has corners of patches, and slices second; Pty-Chi 2 (pear) counts from the middle."""
    whole = smooth(np.arange(80) * 0.5, np.arange(80) * 0.5)
    corner_N2 = np.rint(POSITIONS_N2).astype(int) - 8
    with h5py.File(tmp_path / "ptyrad.hdf5", "w") as file:
        file["optimizable_tensors/objp"] = np.angle(whole)[None, None]
        file["optimizable_tensors/obja"] = np.abs(whole)[None, None]
        file["optimizable_tensors/probe"] = np.ones((2, 16, 16), complex)
        file["optimizable_tensors/probe_pos_shifts"] = POSITIONS_N2 - 8 - corner_N2
        file["model_attributes/crop_pos"] = corner_N2
        file["model_attributes/dx"] = 0.5
    with h5py.File(tmp_path / "ptychi.h5", "w") as file:
        file["object"], file["obj_pixel_size_m"] = whole[None], 0.5e-10
        file["positions_px"] = POSITIONS_N2 - 40
    for name in ("ptyrad.hdf5", "ptychi.h5"):
        np.testing.assert_allclose(transmission(Pixels(path=tmp_path / name)), expected(), atol=1e-14)
    with h5py.File(tmp_path / "ptychi.h5", "r+") as file:
        file["positions_px"][...] = (POSITIONS_N2 - 40)[:, ::-1]
    with pytest.raises(DataError, match="lie otherwise than those of this scan"):
        transmission(Pixels(path=tmp_path / "ptychi.h5"))


@pytest.mark.parametrize(
    ("array", "settings", "said"),
    [
        (np.ones((9, 9)), {}, 'is float64. If it is a phase in rad, say holds = "phase"'),
        (np.ones((9, 9), complex), {"holds": "phase"}, "is complex"),
        (np.full((9, 9), np.nan + 0j), {}, "not finite"),
        (np.ones(9, complex), {}, "must be an object"),
        (np.ones((9, 9), complex), {}, "does not overlap with this scan"),
        (np.ones((99, 99), complex), {"file_pixel_size_angstrom": 50.0}, "100 times those of this run"),
    ],
)
def test_what_is_no_object_of_this_place_is_refused(array, settings, said, tmp_path):
    np.save(tmp_path / "o.npy", array)
    with pytest.raises(DataError, match=said):
        transmission(Pixels(path=tmp_path / "o.npy", **settings))


def test_a_pixel_size_that_cannot_be_compared_is_refused(tmp_path):
    of_file(tmp_path / "result.h5", 0.5, ORIGIN_2, SHAPE)
    with pytest.raises(DataError, match="this scan says no pixel size"):
        transmission(Pixels(path=tmp_path / "result.h5"), geometry(None))


def test_settings_of_a_file_without_a_file_are_refused():
    problems = list(Pixels(name="guess", origin_pixels=(0.0, 0.0)).problems(None))
    assert [problem.key for problem in problems if isinstance(problem, Problem)] == ["name", "origin_pixels"]


# ---- held against the patterns --------------------------------------------------------------------------------------

DATA = SimulatedDiffraction(scan_shape=(8, 8), detector_size=32)


@pytest.fixture(scope="module")
def true_phase() -> np.ndarray:
    return np.asarray(DATA.read().scan.truth.phase_KL)


def looked(
    path: Path, data: SimulatedDiffraction = DATA, holds: Any = MappingProxyType({}), **settings: Any
) -> list[str | Problem]:
    recipe = resolve_text(small_recipe(), path.parent).recipe
    model = Ptychography(probe=Aperture(), object=Pixels(path=path, **holds), **settings)
    return list(inspect_earlier_object(data, model.object, model.build, recipe))


def test_the_true_object_begins_below_vacuum_and_nothing_is_doubted(true_phase, tmp_path):
    np.save(tmp_path / "true.npy", np.exp(1j * true_phase))
    (line,) = looked(tmp_path / "true.npy")
    assert "begins with" in str(line)
    model = Ptychography(probe=Aperture(), object=Pixels(path=tmp_path / "true.npy")).build(
        DATA.build(Context(0, torch.device("cpu"), Path()))
    )
    found = model.reconstruction()
    rows, columns = (np.rint(origin).astype(int) for origin in found.origin_2)
    inside = found.phase_SHW[0][8:-8, 8:-8]
    truth = true_phase[rows + 8 :, columns + 8 :][: inside.shape[0], : inside.shape[1]]
    np.testing.assert_allclose(inside, truth, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda phase: np.exp(-1j * phase), "the sign of its phase is another"),
        (lambda phase: np.exp(1j * np.roll(phase, (9, 7), (0, 1))), "check where it is"),
    ],
)
def test_an_object_of_another_sign_or_place_is_doubted(change, said, true_phase, tmp_path):
    np.save(tmp_path / "wrong.npy", change(true_phase))
    _, doubt = looked(tmp_path / "wrong.npy")
    assert isinstance(doubt, Problem)
    assert said in doubt.message


def test_true_slices_of_a_thick_specimen_are_not_doubted_and_their_reverse_order_is(tmp_path):
    data = SimulatedDiffraction(scan_shape=(8, 8), detector_size=48, slices=6)
    truth = data.read().scan.truth
    assert truth.slices_SKL is not None
    thick = {"data": data, "holds": {"holds": "phase"}, "slices": 6, "thickness_angstrom": data.thickness_angstrom}
    np.save(tmp_path / "true.npy", truth.slices_SKL)
    np.save(tmp_path / "reversed.npy", truth.slices_SKL[::-1])
    (line,) = looked(tmp_path / "true.npy", **thick)
    assert "begins with" in str(line)
    _, doubt = looked(tmp_path / "reversed.npy", **thick)
    assert isinstance(doubt, Problem)
    assert "better in the reverse order" in doubt.message
