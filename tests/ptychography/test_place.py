"""Where in a scan the specimen is: against patterns of which it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainkit_ptychography.preflight.advice import Advice
from trainkit_ptychography.preflight.look import Look, look_at_scan
from trainkit_ptychography.preflight.place import place_of_specimen
from trainkit_ptychography.preflight.sample import middle_points, sample
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.scan import Recording, Scan

RASTER_N2 = np.stack(np.meshgrid(*[2.0 * np.arange(24)] * 2, indexing="ij"), -1).reshape(-1, 2)


def patterns(scatters_N: NDArray[np.float64]) -> Recording:
    """Return patterns of noise, in which light goes from some pixels to others as strongly as a number says."""
    generator = np.random.default_rng(0)
    way_NYX = generator.choice([-0.5, 0.5], (len(scatters_N), 16, 16))
    expected_NYX = 20.0 * (1 + scatters_N[:, None, None] * way_NYX)
    counts_NYX = generator.poisson(expected_NYX).astype(np.float32)
    return Recording(counts_NYX, Scan(positions_N2=RASTER_N2, source="made up"))


def test_the_place_where_patterns_differ_is_found() -> None:
    away_N = np.hypot(*(RASTER_N2 - [36.0, 10.0]).T)
    place_2 = place_of_specimen(patterns((away_N < 9).astype(float)))
    assert place_2 is not None
    assert np.hypot(*(place_2 - [36.0, 10.0])) < 8


@pytest.mark.parametrize("scatters", [0.0, 1.0])
def test_vacuum_and_a_specimen_everywhere_are_no_places(scatters: float) -> None:
    assert place_of_specimen(patterns(np.full(len(RASTER_N2), scatters))) is None


def test_a_bad_frame_and_an_empty_one_are_no_specimen() -> None:
    recording = patterns(np.zeros(len(RASTER_N2)))
    read = np.linspace(0, len(RASTER_N2) - 1, 144).round().astype(int)
    recording.intensities_NYX[read[40], :8] = 900.0
    recording.intensities_NYX[read[90]] = 0.0
    place_2 = place_of_specimen(recording)
    assert place_2 is None


@pytest.mark.parametrize(("middle", "elsewhere"), [("vacuum", "specimen"), ("vacuum", "vacuum"), ("specimen", "")])
def test_another_place_is_looked_at_only_if_the_middle_shows_no_specimen(
    monkeypatch: pytest.MonkeyPatch, middle: str, elsewhere: str
) -> None:
    shown = {None: middle, (36.0, 10.0): elsewhere}
    looked_at = []

    def look_about(recording: Recording, place_2: NDArray[np.float64] | None, *asked: object) -> Look:
        place = None if place_2 is None else tuple(place_2.tolist())
        looked_at.append(place)
        is_judged = shown[place] == "specimen"  # type: ignore[index]
        unknown: Any = None
        return Look(Advice((), f"{shown[place]}", is_judged), unknown, unknown)  # type: ignore[index]

    monkeypatch.setattr("trainkit_ptychography.preflight.look._look_about", look_about)
    monkeypatch.setattr("trainkit_ptychography.preflight.look.place_of_specimen", lambda _: np.array([36.0, 10.0]))
    found = look_at_scan(patterns(np.zeros(len(RASTER_N2))), None, Aperture(), 0, 0.0, True)
    assert found is not None
    assert found.advice.is_judged == ("specimen" in (middle, elsewhere))
    assert ("away from the middle" in found.advice.line) == (elsewhere == "specimen")
    assert looked_at == ([None] if middle == "specimen" else [None, (36.0, 10.0)])


def test_the_points_about_a_place_are_those_nearest_to_it() -> None:
    recording = patterns(np.zeros(len(RASTER_N2)))
    points_N = middle_points(recording, 25, np.array([40.0, 4.0]))
    assert np.hypot(*(RASTER_N2[points_N] - [40.0, 4.0]).T).max() < 7
    part = sample(recording, points_N, Aperture(), 0, most_pixels=1, about_2=np.array([40.0, 4.0]))
    assert len(part.points_N) == 25
