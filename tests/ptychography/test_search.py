"""A search that tries most geometries out on few patterns, held against one that takes all patterns for each."""

from __future__ import annotations

import attrs
import pytest

from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import middle_points, sample
from trainkit_ptychography.preflight.search import Search
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Recording
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SETTINGS = SimulatedDiffraction(scan_shape=(14, 14), step_angstrom=0.8, detector_size=40, defocus_angstrom=120.0)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return SETTINGS.read()


def search(recording: Recording, defocus: float, swapped: bool = False) -> Search:
    positions_N2 = oriented(recording.scan.positions_N2, swapped, (), 0.0)
    told = recording._replace(scan=attrs.evolve(recording.scan, positions_N2=positions_N2))
    return Search(sample(told, middle_points(told, 196), Aperture(defocus_angstrom=defocus), 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defocus", "swapped", "expected"),
    [
        (120.0, False, {}),
        (-120.0, False, {"flips": ("rows", "columns")}),
        (120.0, True, {"swapped": True}),
    ],
)
def test_few_patterns_tell_what_is_far_off(
    recording: Recording, defocus: float, swapped: bool, expected: dict[str, object]
) -> None:
    glancing, whole = (search(recording, defocus, swapped) for _ in range(2))
    whole._few = None
    found, of_all = glancing(), whole()
    assert attrs.evolve(found.geometry, defocus_change_angstrom=0.0) == Geometry(**expected)  # type: ignore[arg-type]
    assert found == attrs.evolve(of_all, told=found.told, best=found.best, changes=found.changes)
    assert [each.name for each in found.changes] == [each.name for each in of_all.changes]
    assert found.best.misfit == of_all.best.misfit
    assert glancing.num_trials < 0.5 * whole.num_trials


def test_a_sample_of_few_patterns_is_not_glanced_at(recording: Recording) -> None:
    told = search(recording, 120.0).sample
    assert Search(told.nearest_to_middle(64))._few is None
    few = Search(told)._few
    assert few is not None
    away_N = abs(few.scan.positions_N2 - told.scan.positions_N2.mean(0)).max(1)
    assert (len(few.points_N), away_N.max() < abs(told.scan.positions_N2 - told.scan.positions_N2.mean(0)).max()) == (
        49,
        True,
    )
