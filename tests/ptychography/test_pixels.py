"""Pixels that did not measure are named with the line that leaves them out, and that line leaves them out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from inspected import inspected

from trainkit import Context, DataError
from trainkit_ptychography.losses.amplitude import Amplitude
from trainkit_ptychography.losses.intensity import Intensity
from trainkit_ptychography.losses.poisson import Poisson
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.paste import Lines
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.pixels import doubts_of_pixels, look_at_pixels
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.sampling import beam_offset, mirrored_where_hidden
from trainkit_ptychography.scans.scan import checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import simulate

SIMULATED = simulate(SimulatedDiffraction(scan_shape=(8, 8), detector_size=32, dose_per_square_angstrom=1e5))
COUNTS = np.fft.fftshift(np.asarray(SIMULATED.intensities_NYX), axes=(1, 2))
GENERATOR = np.random.default_rng(8)


def written(folder: Path, counts: np.ndarray = COUNTS, **arrays: Any) -> Path:
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"], file["points"] = counts, SIMULATED.scan.positions_N2
        for name, array in arrays.items():
            file[name] = array
    return folder / "scan.h5"


def settings(path: Path, **more: Any) -> HDF5Diffraction:
    prepare = Prepare(**{key: _as_tuple(each) for key, each in more.pop("prepare", {}).items()})
    known = {"pixel_size_angstrom": 0.4, "energy_kev": 80.0, "semiangle_mrad": 25.0, "defocus_angstrom": 60.0}
    given = {"patterns": "data", "positions": "points", "positions_unit": "pixels", **known, **more}
    return HDF5Diffraction(path=path, prepare=prepare, **given)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(each) for each in value) if isinstance(value, list) else value


def doubts(data: HDF5Diffraction) -> list[str]:
    return [line for line in inspected(data) if line.startswith("warning")]


def line_of(text: str) -> dict[str, Any]:
    """Return the settings of ``prepare`` that a message says to paste."""
    tables = re.findall(r"prepare = \{[^}]*\}", text)
    assert tables, text
    found: dict[str, Any] = tomllib.loads(tables[-1])["prepare"]  # it holds what those before it say, too
    return found


def live(data: HDF5Diffraction) -> LiveDiffraction:
    return data.build(Context(0, torch.device("cpu"), Path()))


HOT = [[1, 20], [5, 5], [16, 17], [16, 18], [31, 2]]


def with_hot(counts: np.ndarray) -> np.ndarray:
    for row, column in HOT:
        counts[:, row, column] = GENERATOR.poisson(6e4, len(counts))
    return counts


def with_gap(counts: np.ndarray) -> np.ndarray:
    counts[:, 13], counts[:, 20, 15] = 0, 0
    return counts


def with_stuck(counts: np.ndarray) -> np.ndarray:
    counts[:, 3, 4], counts[:, 20, 21] = 7, 50
    return counts


def with_cosmics(counts: np.ndarray) -> np.ndarray:
    hit = GENERATOR.random(counts.shape) < 1e-3
    return np.where(hit, 5e4, counts)


def with_marks(counts: np.ndarray) -> np.ndarray:
    counts = counts.astype(np.int32)
    counts[:, 10:12], counts[:, 5, 9] = -1, -2
    return counts


def with_unsigned_marks(counts: np.ndarray) -> np.ndarray:
    counts = counts.astype(np.uint32)
    counts[:, 10:12], counts[:, 5, 9] = 2**32 - 1, 2**32 - 2
    return counts


def with_saturation(counts: np.ndarray) -> np.ndarray:
    return np.minimum(counts, np.sort(counts.ravel())[-800])


def with_full_type(counts: np.ndarray) -> np.ndarray:
    return np.minimum(3 * counts, 255).astype(np.uint8)


def with_nan(counts: np.ndarray) -> np.ndarray:
    counts[:, 7, 7], counts[3, 12, 12] = np.nan, np.inf
    return counts


def with_float_sentinel(counts: np.ndarray) -> np.ndarray:
    counts[:, 12] = -9999.5
    return counts


@pytest.mark.parametrize(
    ("fault", "key", "value"),
    [
        (with_hot, "bad_pixels", HOT),
        (with_gap, "bad_rows", [13]),
        (with_stuck, "bad_pixels", [[3, 4], [20, 21]]),
        (with_unsigned_marks, "bad_values", [2**32 - 1]),
    ],
)
def test_what_is_wrong_with_pixels_is_said_with_the_line_that_mends_it(tmp_path, fault, key, value):
    path = written(tmp_path, fault(COUNTS.copy()))
    said = doubts(settings(path))
    assert key in said[0]
    prepare: dict[str, Any] = {}
    while new := doubts(settings(path, prepare=prepare)):  # a line may leave more than one doubt
        found = line_of(new[0])
        assert found.keys() - prepare.keys() or found != {each: prepare[each] for each in found}, new
        prepare |= {each: [*prepare.get(each, []), *found[each]] for each in found}
    assert value == prepare[key] or set(value) <= set(prepare[key])


@pytest.mark.parametrize(
    ("fault", "words", "values"),
    [
        (with_marks, r"65 pixels are -1 or -2, in all of 64 patterns", [-1, -2]),
        (with_float_sentinel, r"32 pixels are -9999.5, in all of 64 patterns", [-9999.5]),
        (with_nan, r"1 pixel is nan, in all of 64 patterns", [float("nan"), float("inf")]),
    ],
)
def test_values_that_are_no_counts_are_refused_with_how_to_leave_them_out(tmp_path, fault, words, values):
    path = written(tmp_path, fault(COUNTS.copy()))
    with pytest.raises(DataError, match=words) as caught:
        doubts(settings(path))
    assert "bad_values" in line_of(str(caught.value))
    with pytest.raises(DataError, match=words):  # a run says the same
        live(settings(path))
    assert doubts(settings(path, prepare={"bad_values": values})) == []


def test_counts_at_the_end_of_their_type_are_saturated(tmp_path):
    said = doubts(settings(written(tmp_path, with_full_type(COUNTS.copy()))))
    assert re.search(
        r"in some patterns at 255, the end of what uint8 can hold: saturated.*bad_values = \[255\]", said[0]
    )


def test_marks_that_were_set_to_zero_are_still_seen(tmp_path):
    said = doubts(settings(written(tmp_path, with_marks(COUNTS.copy())), prepare={"background": 0.0}))
    assert "65 pixels are -1 or -2" in said[0]


def test_noise_around_zero_is_no_mark(tmp_path):
    path = written(tmp_path, COUNTS + GENERATOR.normal(0, 0.3, COUNTS.shape).astype(np.float32))
    with pytest.raises(DataError, match=r"% of all values are negative.*prepare = { background = 0 } sets these"):
        doubts(settings(path))


@pytest.mark.parametrize(
    ("fault", "words"), [(with_cosmics, "single values in .* are outliers"), (with_saturation, "satur")]
)
def test_values_above_a_border_can_be_left_out_where_they_occur(tmp_path, fault, words):
    counts = fault(COUNTS.copy())
    path = written(tmp_path, counts)
    said = doubts(settings(path))
    assert re.search(words, said[0]), said
    border = line_of(said[0])["bad_above"]
    assert doubts(settings(path, prepare={"bad_above": border})) == []
    recording = checked(settings(path, prepare={"bad_above": border}).read())
    assert recording.scan.frame_masks
    left_out = np.isnan(np.fft.fftshift(np.asarray(recording.intensities_NYX[:]), axes=(1, 2)))
    np.testing.assert_array_equal(left_out, counts > border)


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("scale", [1.0, 37.5])
def test_nothing_is_said_of_pixels_that_measure(tmp_path, dtype, scale):
    if scale != 1 and dtype[0] != "f":
        pytest.skip("a gain makes no whole numbers")
    assert doubts(settings(written(tmp_path, (COUNTS * scale).astype(dtype)))) == []


def test_few_electrons_are_not_taken_for_hot_pixels(tmp_path):
    few = GENERATOR.poisson(COUNTS / COUNTS.sum((1, 2)).mean() * 40).astype(np.uint8)
    for counts in (few, few * np.float32(151.3) + GENERATOR.normal(40, 2, few.shape).clip(0).astype(np.float32)):
        said = [each for each in doubts(settings(written(tmp_path, counts))) if "pixel" in each and "bad_" in each]
        assert said == []


def test_equal_frames_are_pointed_out(tmp_path):
    counts = COUNTS.copy()
    counts[[11, 12, 40]] = counts[[10, 10, 39]]
    assert "leave_out = { points = [11, 12, 40] }" in doubts(settings(written(tmp_path, counts)))[0]


# ---- masks of single patterns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["mask", "good", "value"])
def test_a_pixel_that_failed_in_one_pattern_does_not_count_there(tmp_path, way):
    failed = GENERATOR.random(COUNTS.shape) < 0.02
    failed[:, 9, 9] = True  # in all of them
    path = written(tmp_path, np.where(failed, 3e4, COUNTS), bad=failed.astype("u1"), good=~failed)
    prepare = {
        "mask": {"mask": "bad"},
        "good": {"mask": "good", "mask_marks": "good"},
        "value": {"bad_values": [3e4]},
    }[way]
    data = live(settings(path, validation_fraction=0.0, prepare=prepare))
    good = np.fft.ifftshift(~failed, axes=(1, 2))
    mean = (np.asarray(SIMULATED.intensities_NYX) * good).sum(0) / np.maximum(good.sum(0), 1)
    assert data.mean_counts == pytest.approx(mean.sum(), rel=1e-6)
    assert data.mask_YX is not None
    assert np.flatnonzero(~data.mask_YX.numpy()).tolist() == [np.flatnonzero(~good.any(0))[0]]
    for batch in data.evaluate("train"):
        index = batch["index"].numpy()
        np.testing.assert_array_equal(batch["mask"].numpy(), good[index])
        expected = np.sqrt(np.asarray(SIMULATED.intensities_NYX)[index] * good[index] / data.mean_counts)
        np.testing.assert_allclose(batch["amplitudes"].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [Amplitude(), Intensity(), Poisson()])
def test_a_loss_does_not_see_what_failed_in_a_pattern(loss):
    class AnyData:
        mask_YX, mean_counts = torch.ones(4, 5, dtype=torch.bool), 100.0

    generator = torch.Generator().manual_seed(1)
    outputs = {"intensities": torch.rand(3, 4, 5, generator=generator)}
    mask = torch.rand(3, 4, 5, generator=generator) > 0.5
    batch = {"amplitudes": torch.rand(3, 4, 5, generator=generator), "mask": mask}
    function = loss.build(AnyData())
    found = function(outputs, batch, torch.nn.Identity())
    changed = {"intensities": torch.where(mask, outputs["intensities"], 9.0)}
    assert torch.equal(function(changed, batch, torch.nn.Identity()), found)
    assert function(outputs, {"amplitudes": batch["amplitudes"]}, torch.nn.Identity()) > found


def test_masks_must_be_as_many_as_patterns(tmp_path):
    path = written(tmp_path, bad=np.zeros((63, 32, 32), "u1"))
    with pytest.raises(DataError, match=r"63 masks .* for 64 patterns"):
        settings(path, prepare={"mask": "bad"}).read()


@pytest.mark.parametrize(
    "told",
    [
        {"semiangle_mrad": 4.0, "pixel_size_angstrom": 0.8, "detector_size": 48},  # a disc of three pixels
        {
            "semiangle_mrad": 30.0,
            "dose_per_square_angstrom": 400.0,
            "defocus_angstrom": 1500.0,
        },  # hardly a count a pixel
        {"semiangle_mrad": 15.0, "dose_per_square_angstrom": 1.2e3, "scan_shape": (5, 5)},
    ],
)
@pytest.mark.parametrize("gain", [1.0, 151.3])
def test_small_discs_and_few_counts_raise_no_doubts(tmp_path, told, gain):
    given = {"scan_shape": (8, 8), "detector_size": 32, **told}
    patterns, scan = simulate(SimulatedDiffraction(**given))
    counts = np.fft.fftshift(np.asarray(patterns), axes=(1, 2)) * np.float32(gain)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"], file["points"] = counts, scan.positions_N2
    data = HDF5Diffraction(path=tmp_path / "scan.h5", patterns="data", positions="points", positions_unit="pixels")
    read = data.read().intensities_NYX
    assert isinstance(read, PreparedPatterns)
    assert list(doubts_of_pixels(look_at_pixels(read, every=True), Lines())) == []


def test_a_cluster_of_hot_pixels_is_found(tmp_path):
    counts = COUNTS.copy()
    counts[:, 4:6, 25:27] = GENERATOR.poisson(5e4, (64, 2, 2))
    assert line_of(doubts(settings(written(tmp_path, counts)))[0]) == {
        "bad_pixels": [[4, 25], [4, 26], [5, 25], [5, 26]]
    }


def test_a_gap_through_the_bright_disc_does_not_move_the_beam(tmp_path):
    counts = COUNTS.copy()
    counts[:, 17:19], counts[:, :, 12:14] = -1, -1
    data = settings(written(tmp_path, counts), prepare={"bad_values": [-1]})
    assert doubts(data) == []
    scan = checked(data.read())
    assert abs(np.array(beam_offset(mirrored_where_hidden(scan.survey.mean_YX, scan.scan.mask_YX)))).max() < 0.3
    assert abs(np.array(beam_offset(scan.survey.mean_YX))).max() > 0.5


def test_a_frame_that_was_written_twice_has_its_number_in_the_file_whatever_is_left_out_already(tmp_path: Path) -> None:
    counts = COUNTS.copy()
    counts[20] = counts[19]
    path = written(tmp_path, counts)
    for left_out in ((), (3, "5:8")):
        (said,) = doubts(settings(path, leave_out=LeaveOut(points=left_out)))
        assert "1 pattern is equal to the one before" in said
        already = [f'"{each}"' if isinstance(each, str) else str(each) for each in left_out]
        assert f"leave_out = {{ points = [{', '.join([*already, '20'])}] }}" in said
    assert not doubts(settings(path, leave_out=LeaveOut(points=(3, "5:8", 20))))


@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_a_noise_around_0_in_whole_numbers_is_no_mark_and_its_negative_half_is_not_left_out(
    tmp_path: Path, spread: float
) -> None:
    noise = np.rint(np.random.default_rng(2).normal(0.0, spread, COUNTS.shape))
    path = written(tmp_path, (COUNTS + noise).astype(np.int16))
    with pytest.raises(DataError, match=r"% of all values are negative.*prepare = { background = 0 }") as caught:
        inspected(settings(path))
    assert "bad_values" not in str(caught.value)
    assert not doubts(settings(path, prepare={"background": 0.0}))


def test_a_line_to_paste_keeps_what_the_recipe_says_already(tmp_path: Path) -> None:
    told = {"bin": 2, "bad_pixels": [[1, 20]], "bad_values": [-1], "mask": 'a "mask"'}
    counts = with_marks(with_hot(COUNTS.copy()))
    data = settings(written(tmp_path, counts, **{'a "mask"': np.zeros((32, 32))}), prepare=told)
    with pytest.raises(DataError) as caught:
        doubts(data)
    assert line_of(str(caught.value)) == told | {"bad_values": [-1, -2]}
    said = doubts(settings(data.path, prepare=told | {"bad_values": [-1, -2]}))
    assert line_of(said[0]) == told | {"bad_values": [-1, -2], "bad_pixels": HOT}


def test_each_line_holds_what_the_lines_before_it_add() -> None:
    lines = Lines(leave_out=LeaveOut(points=("196:", 3), marks="bad"))
    assert lines.leave_out(points=[3, 5]) == 'leave_out = { points = ["196:", 3, 5], marks = "bad" }'
    assert lines.leave_out(below=0.1) == 'leave_out = { points = ["196:", 3, 5], marks = "bad", below = 0.1 }'
    assert Lines().prepare(bad_values=[float("nan"), -1.0, 2.0**32 - 1], bad_above=1e-5) == (
        "prepare = { bad_values = [nan, -1, 4294967295], bad_above = 1e-05 }"
    )


def test_what_a_mask_hides_makes_a_pattern_neither_dim_nor_bright(tmp_path: Path) -> None:
    middle = np.s_[10:22, 10:22]  # nearly all of the light
    masks = np.zeros(COUNTS.shape, np.uint8)
    masks[5][middle] = 1
    path = written(tmp_path, COUNTS.copy(), masks=masks)
    assert doubts(settings(path, prepare={"mask": "masks"})) == []
    kept = settings(path, prepare={"mask": "masks"}, leave_out=LeaveOut(below=0.5)).read()
    assert len(kept.intensities_NYX) == 64
    masks[6:][:, middle[0], middle[1]] = 1  # now most have no direct beam, and six have it
    (tmp_path / "most").mkdir()
    path = written(tmp_path / "most", COUNTS.copy(), masks=masks)
    assert doubts(settings(path, prepare={"mask": "masks"})) == []


def test_a_dim_pattern_is_found_behind_masks(tmp_path: Path) -> None:
    counts, masks = COUNTS.copy(), (GENERATOR.random(COUNTS.shape) < 0.1).astype(np.uint8)
    counts[7] = np.round(counts[7] / 40)
    data = settings(written(tmp_path, counts, masks=masks), prepare={"mask": "masks"})
    (said,) = doubts(data)
    assert "a twentieth of the median total (7): leave them out" in said
    assert "leave_out = { below = 0.1 }" in said
    assert checked(settings(data.path, prepare={"mask": "masks"}, leave_out=LeaveOut(below=0.1)).read()).scan.left_out


def test_values_that_are_told_to_be_bad_are_counted_and_those_that_cannot_occur_are_doubted(tmp_path: Path) -> None:
    path = written(tmp_path, with_marks(COUNTS.copy()))
    said = inspected(settings(path, prepare={"bad_values": [-1, -2, -7]}))
    share = 100 * 2 / 32
    assert f"bad values   -1 is {share:.2g} % of all values, -2 is 0.098 % of all values, -7 is nowhere" in said
    assert not [line for line in said if line.startswith("warning")]
    unsigned = settings(written(tmp_path, with_unsigned_marks(COUNTS.copy())), prepare={"bad_values": [-1]})
    assert (
        "-1, which uint32, the type of the patterns, cannot hold; where -1 was stored as uint32"
        in (doubts(unsigned)[0])
    )


def test_marks_below_a_noise_around_0_are_not_set_to_0_with_it(tmp_path: Path) -> None:
    counts = COUNTS + GENERATOR.normal(0, 0.5, COUNTS.shape).astype(np.float32)
    counts[:, 10] = -1e4
    path = written(tmp_path, counts)
    with pytest.raises(DataError, match=r"32 pixels are -10000, in all .* negative, down to -[1-4]\.") as caught:
        doubts(settings(path))
    assert line_of(str(caught.value)) == {"bad_values": [-10000], "background": 0}
    (said,) = doubts(settings(path, prepare={"background": 0.0}))
    assert line_of(said) == {"bad_values": [-10000], "background": 0}
    assert doubts(settings(path, prepare=line_of(said))) == []
