"""A scan that is stretched along one axis, against simulations of which the true step is known."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.ending import Ending, judge
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.look import Look, look_at_scan
from trainkit_ptychography.preflight.sample import Sample, middle_points, sample
from trainkit_ptychography.preflight.stretch import doubt_of_stretch, stretch
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.positions import oriented, raster
from trainkit_ptychography.scans.scan import Recording
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

TOLD = Aperture(defocus_angstrom=60.0)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return SimulatedDiffraction(scan_shape=(16, 16), detector_size=32).read()


def told(recording: Recording, rows: float, columns: float) -> Recording:
    """Return a scan of which other steps are told."""
    positions_N2 = recording.scan.positions_N2 * np.array([rows, columns])
    return recording._replace(scan=attrs.evolve(recording.scan, positions_N2=positions_N2))


def of(recording: Recording) -> Sample:
    return sample(recording, middle_points(recording, 256), TOLD, 0)


@pytest.mark.parametrize(("rows", "columns"), [(1.0, 1.25), (0.8, 1.0)])
def test_a_step_that_is_wrong_along_one_axis_is_told(recording: Recording, rows: float, columns: float) -> None:
    part = of(told(recording, rows, columns))
    as_told = part.try_out(Geometry())
    found = stretch(part, Geometry(), as_told, None)
    assert found is not None
    assert (found.axis, found.factor) == (0 if columns == 1 else 1, pytest.approx(1 / (rows * columns), rel=0.1))
    said = doubt_of_stretch(found, as_told, None).message
    assert ("from one row" if found.axis == 0 else "from one column") in said.split(", and as told")[0]


def test_a_scan_that_is_told_rightly_is_not_doubted(recording: Recording) -> None:
    part = of(recording)
    assert stretch(part, Geometry(), part.try_out(Geometry()), None) is None


class Matched:
    """Stands in for a sample: trials fit better the nearer positions are to the true ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, true_N2: NDArray[np.float64]) -> None:
        def try_out(part: Sample, geometry: Geometry) -> Trial:
            off = float(np.square(part.part.scan.positions_N2 - true_N2).mean() / true_N2.var())
            noise_T = np.random.default_rng(0).normal(0, 1e-3, 64)
            return Trial(1 + off + noise_T, np.full(64, 9.0), 0.0)

        monkeypatch.setattr(Sample, "try_out", try_out)


@pytest.mark.parametrize("order", ["row_column", "column_row"])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_axes_are_those_of_the_scan_before_it_is_turned(
    monkeypatch: pytest.MonkeyPatch, recording: Recording, order: Any, axis: int
) -> None:
    step = [0.5, 0.5]
    step[axis] /= 1.2
    lies = (order == "column_row", ("rows",), 30.0)
    centred_N2 = raster((16, 16), (0.5, 0.5), False) - 0.5 * 7.5
    Matched(monkeypatch, oriented(centred_N2 / 0.5 * np.array(step), *lies))
    scan = attrs.evolve(recording.scan, positions_N2=oriented(centred_N2, *lies))
    part = of(recording._replace(scan=scan))
    data = HDF5Diffraction(
        path="scan.h5",
        patterns="p",
        raster=Raster(step=0.5),
        positions_order=order,
        positions_flip=("rows",),
        positions_rotation_deg=30.0,
    )
    as_told = part.try_out(Geometry())
    found = stretch(part, Geometry(), as_told, data)
    assert found is not None
    (pasted,) = re.findall(r"raster.step = \[(\S+), (\S+)\]", doubt_of_stretch(found, as_told, data).message)
    assert [float(each) for each in pasted] == pytest.approx(step, rel=0.05)


class Ended(NamedTuple):
    factor: float
    is_doubted: bool


@pytest.mark.slow
def test_a_run_that_keeps_a_stretched_scan_is_doubted_and_one_that_repaired_it_is_not(recording: Recording) -> None:
    wrong = told(recording, 1.0, 1.25)
    look = look_at_scan(wrong, None, TOLD, 0, 0.0, True)
    assert isinstance(look, Look)
    assert look.stretch is not None
    assert "not as told" in look.advice.line
    probe_MYX = look.sample.cut_down(Geometry())
    for ended in (Ended(1.0, True), Ended(0.8, False)):
        positions_N2 = wrong.scan.positions_N2 * np.array([1.0, ended.factor])
        verdict = judge(look, Ending(probe_MYX, positions_N2))
        assert (verdict.doubt is not None) == ended.is_doubted
