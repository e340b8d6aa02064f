"""Signs and axes of tilt pairs, held against simulated scans whose tilts are known."""

from __future__ import annotations

import attrs
import pytest

from trainkit import Problem
from trainkit_ptychography.preflight.scan_offsets import inspect_offsets
from trainkit_ptychography.preflight.tilt_signs import Tilts, inspect_tilts, ways
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_crystal import CRYSTAL

TRUE: Tilts = ((-12.0, 0.0), (12.0, 0.0))
PAIR = attrs.evolve(
    CRYSTAL, scan_shape=(10, 10), position_error_angstrom=0.03, tilt_mrad=TRUE[0], further_tilts_mrad=TRUE[1:]
)  # type: ignore[misc]
PROBE = Aperture()


def said(data: SimulatedDiffraction, told: Tilts) -> tuple[list[str], list[str]]:
    seen = list(inspect_tilts(data.read(), PROBE, 0, data.thickness_angstrom, (0.0, 0.0), told))
    doubts = [each.message for each in seen if isinstance(each, Problem)]
    return doubts, [each for each in seen if isinstance(each, str)]


def test_ways_that_are_the_same_are_tried_once() -> None:
    assert [each.tilts_mrad for each in ways([(0.0, 0.0), (0.0, 5.0)])] == [
        ((0.0, 0.0), (0.0, 5.0)),
        ((0.0, 0.0), (0.0, -5.0)),
        ((0.0, 0.0), (5.0, 0.0)),
        ((0.0, 0.0), (-5.0, 0.0)),
    ]
    assert len(ways(((1.0, 2.0), (-1.0, -2.0)))) == 8


@pytest.mark.slow
def test_right_tilts_raise_no_doubt() -> None:
    doubts, (line,) = said(PAIR, TRUE)
    assert doubts == []
    assert "as told" in line


@pytest.mark.slow
def test_a_wrong_sign_is_named_with_the_line_to_paste_also_if_the_specimen_moved_between_the_scans() -> None:
    moved = attrs.evolve(PAIR, further_offsets_angstrom=((1.5, -1.0),))  # type: ignore[misc]
    (doubt,), _ = said(moved, ((12.0, 0.0), (-12.0, 0.0)))
    assert "the opposite sign along rows" in doubt
    assert "paste scan_tilts_mrad = [[-12, 0], [12, 0]]" in doubt


def test_scans_of_a_tilted_specimen_show_the_same_place_where_the_beam_went() -> None:
    pair = attrs.evolve(PAIR, scan_shape=(14, 14), grains=1)  # type: ignore[misc]
    recording = pair.read()
    (line,) = inspect_offsets(recording, pair, PROBE, 0, 35.0, TRUE)
    assert isinstance(line, str)
    assert "shows the same place" in line
    (doubt,) = inspect_offsets(recording, pair, PROBE, 0, 35.0)  # as if nothing were tilted
    assert isinstance(doubt, Problem)
    assert "off where scan 0 shows it" in doubt.message
