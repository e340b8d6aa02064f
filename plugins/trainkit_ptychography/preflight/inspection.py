"""The look at the geometry that ``check --data`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trainkit import Problem, Progress
from trainkit_ptychography.preflight.advice import explains_much
from trainkit_ptychography.preflight.images import inspect_beam, inspect_images
from trainkit_ptychography.preflight.look import FEWEST, PATTERNS, look_at_scan
from trainkit_ptychography.preflight.sample import coarse_sample, middle_points, sample
from trainkit_ptychography.preflight.scan_offsets import inspect_offsets
from trainkit_ptychography.preflight.search import Search
from trainkit_ptychography.preflight.seen_images_live import look_for_images
from trainkit_ptychography.preflight.single_scans import one_scan, subset, visits
from trainkit_ptychography.preflight.step_advice import steps_in_words
from trainkit_ptychography.preflight.thick_step import doubt_of_step
from trainkit_ptychography.preflight.tilt_signs import inspect_tilts
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.pixels import doubts_of_pixels, look_at_pixels
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData

_MOST_SCANS = 8  # more arrays than this are parts of one scan


def trains_probe(recipe: Recipe) -> bool:
    """Return whether a run makes up for a probe that is slightly wrong."""
    group = recipe.groups.get("probe")
    return group is not None and group.start_epoch is not None


def pixel_doubts(recording: Recording) -> Iterator[str]:
    """Yield what is wrong with pixels, which would be taken for light of another geometry."""
    patterns, scan = recording
    if isinstance(patterns, PreparedPatterns):
        yield from doubts_of_pixels(look_at_pixels(patterns, every=False), scan.lines())


def inspect_geometry(
    data: DiffractionData,
    probe: Probe,
    recipe: Recipe,
    depth_angstrom: float = 0.0,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
    scan_tilts_mrad: Sequence[tuple[float, float]] = (),
) -> Iterator[str | Problem | Progress]:
    """Yield a line about the geometry, and a doubt for each property that the patterns contradict.

    Args:
        data: The scan's settings.
        probe: The probe's settings.
        recipe: The whole recipe.
        depth_angstrom: How deep in the specimen its middle is: there it is tried out as if it were thin.
        tilt_mrad: Direction of the beam through a thick specimen.
        scan_tilts_mrad: By how much it differs in each of the scans that the data joins: then each is looked at alone.
    """
    recording = data.read()
    if len(recording.intensities_NYX) >= FEWEST and any(pixel_doubts(recording)):
        yield "geometry     not compared with the patterns: some of their pixels did not measure"
        return
    of_steps = steps_in_words(recording, data)
    if of_steps.doubts:
        yield "geometry     not compared with the patterns: they are out of step with the scan points"
        yield from (Problem(each, severity="warning") for each in of_steps.doubts)
    else:
        yield from _inspect_in_step(recording, data, probe, recipe, depth_angstrom, tilt_mrad, scan_tilts_mrad)
    yield from of_steps.lines


def _inspect_in_step(
    recording: Recording,
    data: DiffractionData,
    probe: Probe,
    recipe: Recipe,
    depth_angstrom: float,
    tilt_mrad: tuple[float, float],
    scan_tilts_mrad: Sequence[tuple[float, float]],
) -> Iterator[str | Problem | Progress]:
    """Yield the same as `inspect_geometry` for patterns that belong to the scan points as told."""
    if data.propagation_to_detector().patterns_are_images:
        yield from inspect_images(data)
        if probe.num_scans() == 1:
            yield from inspect_beam(data, probe, recipe.run.seed)
        return
    num = recording.scan.num_scans
    if 1 < num <= _MOST_SCANS and probe.num_scans() in (1, num):
        tilts_mrad: Sequence[tuple[float, float]] = ()
        if len(scan_tilts_mrad) == num:
            tilts_mrad = yield from inspect_tilts(
                recording, probe, recipe.run.seed, 2 * depth_angstrom, tilt_mrad, scan_tilts_mrad
            )
        whole_mrad = [(each[0] + tilt_mrad[0], each[1] + tilt_mrad[1]) for each in tilts_mrad]
        yield from inspect_offsets(recording, data, probe, recipe.run.seed, depth_angstrom, whole_mrad)
    if probe.num_scans() == 1 and not (scan_tilts_mrad and num > 1):
        yield from _inspect_scan(recording, data, probe, recipe, depth_angstrom)
        yield from _of_other_defoci(recording, probe, recipe, depth_angstrom)
    elif probe.num_scans() not in (1, num):
        yield Problem(f"the data joins {num} scans, and there are {probe.num_scans()} probes", "probe.scans")
    else:
        for number in range(num):
            scan = one_scan(recording, number)
            for seen in _inspect_scan(scan, data, probe.of_scan(number), recipe, depth_angstrom):
                if isinstance(seen, Problem):
                    yield seen._replace(message=f"scan {number} of {num}, counted from 0: {seen.message}")
                else:
                    yield f"{seen} (scan {number})" if isinstance(seen, str) else seen


def _of_other_defoci(recording: Recording, probe: Probe, recipe: Recipe, depth_angstrom: float) -> Iterator[Problem]:
    """Yield a doubt if scans that have one probe, or the times that each place was scanned, fit different defoci."""
    scan_N, what = recording.scan.scan_N, "scans"
    if scan_N is None:
        scan_N, what = visits(recording.scan.positions_N2), "times that each place was scanned"
    if scan_N is None or scan_N.max() >= _MOST_SCANS:
        return
    defoci, steps = [], []
    for number in range(int(scan_N.max()) + 1):
        part = subset(recording, np.flatnonzero(scan_N == number))
        points_N = middle_points(part, PATTERNS)
        if len(points_N) < FEWEST:
            return
        told = coarse_sample(sample(part, points_N, probe, recipe.run.seed, depth_angstrom), part, points_N)
        defocus, step = told.told_defocus(), told.defocus_step_angstrom()
        if defocus is None or step is None:
            return
        found = Search(told)()
        if not explains_much(found, told):
            return
        defoci.append(defocus + found.geometry.defocus_change_angstrom)
        steps.append(step)
    if len(defoci) > 1 and max(defoci) - min(defoci) > max(steps):
        yield Problem(
            f"the {len(defoci)} {what} fit different defoci ({', '.join(f'{each:.0f}' for each in defoci)} Å), and one "
            'probe is used for all: keep the scans in arrays or files of their own (patterns = ["…", "…"]), and give '
            'each its probe, probe = { use = "per_scan", scans = { first = { use = "aperture", defocus_angstrom = '
            f"{defoci[0]:.0f} }}, … }} }}",
            severity="warning",
        )


def _inspect_scan(
    recording: Recording, data: DiffractionData, probe: Probe, recipe: Recipe, depth_angstrom: float
) -> Iterator[str | Problem | Progress]:
    look = look_at_scan(recording, data, probe, recipe.run.seed, depth_angstrom, trains_probe(recipe))
    if look is None:
        yield f"geometry     not compared with the patterns: fewer than {FEWEST} tell too little"
        return
    yield look.advice.line
    images = None
    if look.advice.doubts and not look.advice.is_judged and isinstance(data, FileDiffraction):
        images = look_for_images(data)
    if images is not None:
        yield Problem(
            "no geometry of the far field that was tried explains how patterns differ, and they look like images of "
            f"the specimen in the near field: {images.why}. If they are, {images.lines()}; trainkit init writes a "
            "whole recipe for them",
            severity="warning",
        )
        return
    yield from look.advice.doubts
    if depth_angstrom > 0 and not look.advice.doubts and (words := doubt_of_step(look.sample, 2 * depth_angstrom)):
        yield Problem(words, severity="warning")
