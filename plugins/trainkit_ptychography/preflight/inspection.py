"""The look at the geometry that ``check --data`` takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainkit import Problem, Progress
from trainkit_ptychography.preflight.advice import advise
from trainkit_ptychography.preflight.sample import sample
from trainkit_ptychography.preflight.search import Search
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.pixels import doubts_of_pixels, look_at_pixels
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData

_PATTERNS = 256
_FEWEST = 25


def _pixel_doubts(recording: Recording) -> Iterator[str]:
    """Yield what is wrong with pixels, which would be taken for light of another geometry."""
    patterns, scan = recording
    if isinstance(patterns, PreparedPatterns):
        yield from doubts_of_pixels(look_at_pixels(patterns, every=False), scan.lines())


def inspect_geometry(data: DiffractionData, probe: Probe, recipe: Recipe) -> Iterator[str | Problem | Progress]:
    """Yield a line about the geometry, and a doubt for each property that the patterns contradict.

    Args:
        data: The scan's settings.
        probe: The probe's settings.
        recipe: The whole recipe.
    """
    recording = data.read()
    if len(recording.intensities_NYX) < _FEWEST:
        yield f"geometry     not compared with the patterns: fewer than {_FEWEST} tell too little"
        return
    if any(_pixel_doubts(recording)):
        yield "geometry     not compared with the patterns: some of their pixels did not measure"
        return
    part = sample(recording, probe, recipe.run.seed, _PATTERNS)
    group = recipe.groups.get("probe")
    trained = group is not None and group.start_epoch is not None
    found = Search(part)()
    advice = advise(found, part, data, trained)
    yield advice.line
    yield from advice.doubts
