"""A fine detector is binned for trials of geometries, held against sums of its pixels and against all of them."""

from __future__ import annotations

from typing import cast

import attrs
import numpy as np
import pytest

from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.look import Look, look_at_scan
from trainkit_ptychography.preflight.sample import Sample, middle_points, sample
from trainkit_ptychography.preflight.search import sureness, visibility
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Recording
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SETTINGS = SimulatedDiffraction(scan_shape=(14, 14), step_angstrom=0.6, detector_size=144, defocus_angstrom=60.0)
TOLD = Aperture(defocus_angstrom=60.0)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return SETTINGS.read()


def of(recording: Recording, binned: int) -> Sample:
    return sample(recording, middle_points(recording, 196), TOLD, 0, binned=binned)


@pytest.mark.parametrize("binned", [1, 2, 3])
def test_a_pixel_is_the_sum_of_those_about_it(recording: Recording, binned: int) -> None:
    found = of(recording, binned)
    size = found.amplitudes_NVU.shape[1]
    assert size % 2 == 0
    first = 72 - binned * size // 2 - (binned - 1) // 2  # of the block at the lowest frequency; the beam is at 72
    pattern_YX = np.fft.fftshift(recording.intensities_NYX[found.points_N[5]])
    used_YX = pattern_YX[first : first + binned * size, first : first + binned * size]
    summed_VU = used_YX.reshape(size, binned, size, binned).sum((1, 3))
    scaled_VU = np.fft.fftshift(found.amplitudes_NVU[5].square().numpy()) * found.part.survey.mean_total
    np.testing.assert_allclose(scaled_VU, summed_VU, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_binned_patterns_tell_right_from_wrong_as_all_pixels_do(recording: Recording) -> None:
    wrong = Geometry(flips=("rows",))
    for binned in (1, 2, 3):
        found = of(recording, binned)
        right, other = found.try_out(Geometry()), found.try_out(wrong)
        assert visibility(right) > 6, binned
        assert sureness(other, right) > 6, binned


def look(recording: Recording) -> Look:
    return cast(Look, look_at_scan(recording, None, TOLD, 0, 0.0, True))


@pytest.mark.slow
def test_few_pixels_tell_what_is_right_and_what_is_wrong(recording: Recording) -> None:
    right = look(recording)
    assert right.advice.is_judged
    assert not right.advice.doubts
    assert right.sample.binned > 1
    assert len(right.sample.points_N) > 100  # as many as all pixels would allow
    positions_N2 = oriented(recording.scan.positions_N2, False, ("rows",), 0.0)
    wrong = look(recording._replace(scan=attrs.evolve(recording.scan, positions_N2=positions_N2)))
    assert wrong.advice.doubts
    assert wrong.sample.binned > 1
    assert wrong.found.geometry.flips == ("rows",)


def test_a_probe_that_fills_its_field_of_view_is_not_binned(recording: Recording) -> None:
    wide = sample(recording, middle_points(recording, 196), Aperture(defocus_angstrom=600.0), 0)
    assert wide.coarsest_binning(196) == 1
