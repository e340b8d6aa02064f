"""Scans of one specimen whose positions are not in one frame: found, declared, trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, DataError, Problem, RecipeError
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.physics.displacement import Shown, displacement
from trainkit_ptychography.preflight.scan_offsets import inspect_offsets
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.per_scan import ProbePerScan
from trainkit_ptychography.scans.shifts import shifts_of_points
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_recipe import small_recipe

OFFSET = (6.5, -4.6)
PAIR = SimulatedDiffraction(
    scan_shape=(14, 14),
    step_angstrom=0.8,
    detector_size=32,
    defocus_angstrom=100.0,
    further_offsets_angstrom=(OFFSET,),
    validation_fraction=0.1,
)
TWO_LENSES = ProbePerScan(scans={"a": Aperture(), "b": Aperture(defocus_angstrom=30.0)})
SMALL = attrs.evolve(PAIR, scan_shape=(5, 5), further_offsets_angstrom=((0.8, -0.4),))
CONTEXT = Context(0, torch.device("cpu"), Path())


def plane(size: int, width: float, seed: int) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    white = np.fft.fft2(np.random.default_rng(seed).normal(size=(size, size)))
    return np.fft.ifft2(white * np.exp(-((frequency * width) ** 2))).real


# ---- finding ---------------------------------------------------------------------------------------------------------


def test_a_displacement_of_masked_images_of_unequal_size_is_found_with_pearsons_r() -> None:
    whole = plane(96, 12.0, 0)
    one = Shown(whole[20:60, 18:62], np.ones((40, 44), bool), np.array([20.0, 18.0]))
    mask = np.ones((36, 40), bool)
    mask[:5] = mask[:, 30:] = False
    values = whole[27:63, 12:52].copy()
    values[~mask] = 50.0
    other = Shown(values, mask, np.array([20.0, 18.0]))  # told to be at (20, 18), and is at (27, 12)
    found = displacement(one, other)
    assert found is not None
    assert found.displacement_2 == pytest.approx((-7.0, 6.0), abs=0.05)
    assert found.correlation == pytest.approx(1.0, abs=1e-6)
    both = mask  # as told, their first pixels coincide
    pairs = one.values_HW[:36, :40][both], values[both]
    assert found.as_told == pytest.approx(np.corrcoef(*pairs)[0, 1], abs=1e-6)
    in_place = displacement(one, attrs.evolve(other, origin_2=np.array([27.0, 12.0])))
    assert in_place is not None
    assert in_place.displacement_2 == pytest.approx((0.0, 0.0), abs=0.05)
    assert in_place.as_told == pytest.approx(1.0, abs=1e-6)


def test_images_that_have_nothing_in_common_correlate_nowhere_and_crystals_in_many_places() -> None:
    one, other = (Shown(plane(40, 8.0, seed), np.ones((40, 40), bool), np.zeros(2)) for seed in (1, 2))
    found = displacement(one, other)
    assert found is not None
    assert found.correlation < 0.8
    assert found.correlation < 4.5 * found.spread
    lattice = np.cos(2 * np.pi * np.arange(40) / 8)[:, None] + np.cos(2 * np.pi * np.arange(40) / 8)
    crystal = Shown(lattice, np.ones((40, 40), bool), np.zeros(2))
    again = displacement(crystal, crystal)
    assert again is not None
    assert again.elsewhere > 0.95


def said(data: SimulatedDiffraction) -> tuple[list[str], list[str]]:
    seen = list(inspect_offsets(data.read(), data, Aperture(), 0, 0.0))
    return [each.message for each in seen if isinstance(each, Problem)], [
        each for each in seen if isinstance(each, str)
    ]


def test_a_scan_that_lies_elsewhere_is_named_with_the_line_to_paste_and_then_nothing_is_said() -> None:
    (doubt,), _ = said(PAIR)
    values = doubt.partition("scan_shifts_angstrom = [[0.0, 0.0], [")[2].partition("]]")[0]
    found = tuple(map(float, values.split(", ")))
    assert found == pytest.approx(OFFSET, abs=0.3)
    doubts, (line,) = said(attrs.evolve(PAIR, scan_shifts_angstrom=((0.0, 0.0), found)))  # type: ignore[misc]
    assert not doubts
    assert "scan 1 of 2 (from 0) shows the same place as scan 0" in line


def test_two_small_scans_that_lie_as_told_are_not_left_open() -> None:
    small = attrs.evolve(PAIR, scan_shape=(8, 8), step_angstrom=1.0, further_offsets_angstrom=((0.0, 0.0),))  # type: ignore[misc]
    doubts, (line,) = said(small)
    assert not doubts
    assert "shows the same place" in line


def test_half_of_a_small_scan_is_enough_to_find_where_it_lies() -> None:
    moved = attrs.evolve(PAIR, further_defoci_angstrom=(30.0,), further_offsets_angstrom=((5.5, -4.0),))  # type: ignore[misc]
    seen = list(inspect_offsets(moved.read(), moved, TWO_LENSES, 0, 0.0))  # their light reaches unequally far
    (doubt,) = [each.message for each in seen if isinstance(each, Problem)]
    assert "scan_shifts_angstrom = [[0.0, 0.0], [5." in doubt


def test_too_few_patterns_are_not_compared() -> None:
    doubts, (line,) = said(attrs.evolve(PAIR, scan_shape=(4, 4)))  # type: ignore[misc]
    assert not doubts
    assert "too few patterns" in line


# ---- declared --------------------------------------------------------------------------------------------------------


def test_declared_shifts_move_the_points_of_their_scan() -> None:
    declared = attrs.evolve(SMALL, scan_shifts_angstrom=((0.0, 0.0), (0.8, -0.4)))  # type: ignore[misc]
    before, after = (each.read().scan for each in (SMALL, declared))
    moved = after.positions_N2 - before.positions_N2
    np.testing.assert_allclose(moved[:25], 0.0)
    np.testing.assert_allclose(moved[25:], np.tile([2.0, -1.0], (25, 1)), atol=1e-12)  # pixels of 0.4 Å
    assert after.truth is not None
    errors = after.truth.positions_N2 - after.positions_N2
    assert np.abs(errors[:25].mean(0) - errors[25:].mean(0)).max() < 0.2


def test_shifts_that_fit_no_scans_are_refused(tmp_path: Path) -> None:
    assert shifts_of_points((), None, None, "x") == 0.0
    with pytest.raises(DataError, match="made of 1 scans, and scan_shifts_angstrom has 2 shifts"):
        shifts_of_points(((0.0, 0.0), (1.0, 1.0)), None, 0.4, "x")
    with pytest.raises(DataError, match="needs the size of a pixel"):
        shifts_of_points(((0.0, 0.0), (1.0, 1.0)), np.array([0, 1]), None, "x")
    one = attrs.evolve(SMALL, further_offsets_angstrom=())  # type: ignore[misc]
    with pytest.raises(DataError, match=r"is one scan, and model\.scan_shifts is for several"):
        Ptychography(probe=Aperture(), scan_shifts=True).build(one.build(CONTEXT))
    more = "further_offsets_angstrom = [[1.0, 0.0]]\nfurther_defoci_angstrom = [1.0, 2.0]"
    with pytest.raises(RecipeError, match="are 1, and there are 2 further scans"):
        resolve_text(small_recipe().replace("[model]", f"{more}\n[model]"), tmp_path)


# ---- trained ---------------------------------------------------------------------------------------------------------


def built() -> tuple[Any, Any]:
    data = SMALL.build(CONTEXT)
    return Ptychography(probe=Aperture(), scan_shifts=True).build(data), data


def test_the_gradient_of_a_shift_is_that_of_all_displacements_of_its_scan() -> None:
    model, _ = built()
    assert list(Ptychography(probe=Aperture(), scan_shifts=True).parameter_groups(model)) == list(
        Ptychography(probe=Aperture(), scan_shifts=True).groups()
    )
    with torch.no_grad():
        model.object.pixels()["phase"].copy_(torch.rand(model.object.pixels()["phase"].shape) * 0.5)
    index = torch.tensor([3, 27, 30, 49, 12])
    model({"index": index})["intensities"].square().sum().backward()
    of_second = model.dr.grad[25:].sum(0)
    assert of_second.abs().max() > 0
    torch.testing.assert_close(model.scan_shifts.further.grad[0], of_second, rtol=1e-4, atol=1e-9)


def test_what_displacements_of_a_scan_have_in_common_becomes_its_shift() -> None:
    model, data = built()
    shifts, trained = model.scan_shifts, data.train_index
    dr = torch.rand(50, 2)
    before = (dr + shifts.of_all())[trained]
    shifts.receive(dr)
    after = (dr + shifts.of_all())[trained]
    common = (before - after)[0]  # of all: the frame of the first scan
    torch.testing.assert_close(before - after, common.expand_as(before), atol=1e-6, rtol=0)
    for scan in (0, 1):
        of_scan = trained[(trained >= 25) == bool(scan)]
        torch.testing.assert_close(dr[of_scan].mean(0), torch.zeros(2), atol=1e-6, rtol=0)


RECIPE = """
trainkit = 1
[run]
epochs = 6
device = "cpu"
[pictures]
every_epochs = 0
[data]
use = "diffraction_simulated"
scan_shape = [14, 14]
step_angstrom = 0.8
detector_size = 32
defocus_angstrom = 100.0
further_offsets_angstrom = [[6.5, -4.6]]
[model]
use = "ptychography"
probe = { use = "aperture" }
[losses.data]
use = "poisson"
[optimizer]
use = "scaled_steps"
[scheduler]
use = "none"
[hooks.truth]
use = "ptychography_truth"
"""


@pytest.mark.slow
def test_with_its_shift_a_second_scan_helps_and_without_it_spoils_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rough = "data.scan_shifts_angstrom=[[0.0, 0.0], [6.0, -4.2]]"
    trained = ("model.scan_shifts=true", 'groups.scan_shifts={start_epoch=1, lr=0.2, optimizer={use="adam"}}')
    without, shifted = (
        start(resolve_text(RECIPE, tmp_path, sets), Console(quiet=True)).run.state for sets in ((), (rough, *trained))
    )
    assert without.metrics["truth/phase_pearson"] < 0.7
    assert shifted.metrics["truth/phase_pearson"] > 0.93
    found = np.array([shifted.metrics[f"scan/shift_of_scan_1_{axis}_angstrom"] for axis in ("rows", "columns")])
    left = np.hypot(*(found - (0.5, -0.4)))  # it follows the object, which follows it
    assert left < 0.6 * np.hypot(0.5, 0.4)
