"""What ``check --data`` reports about cases: everything that is wrong, or else a summary.

With all depth, every case that a run would use is read and preprocessed, as a run does, and stays in the cache for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from trainkit import DataError, Depth, Problem, Progress, bytes_in_words, some_of, usable_cpus
from trainkit_segmentation.cases.case import Case, CaseList, CaseReport
from trainkit_segmentation.data.chosen_classes import annotated_classes, contradictions
from trainkit_segmentation.data.ignored import doubts_about_ignored, ignored_in_words
from trainkit_segmentation.data.intensities import with_intensities
from trainkit_segmentation.data.missing_classes import (
    doubts_about_classes,
    doubts_about_sources,
    note_on_absent,
    problem_of_absent,
)
from trainkit_segmentation.files.header import spacing_of
from trainkit_segmentation.preparing.cache_filling import PreparedCase, mended_in_words, prepare_each
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.cached_cases import open_case, rounded_in_words
from trainkit_segmentation.preparing.grid import Grid, axes_of, left_right_axes, orientation_of
from trainkit_segmentation.splits.shared_subjects import doubts_about_subjects

if TYPE_CHECKING:
    from trainkit_segmentation.data.kind import SegmentationData

_MOST_THREADS = 4


@attrs.frozen
class Voxels:
    """What the voxels of a case are like.

    Attributes:
        of_class: Class -> number of voxels.
        ranges: Lowest and highest intensity of each channel.
        content: Digest of what the case is read from.
    """

    of_class: Mapping[str, int]
    ranges: tuple[tuple[float, float], ...]
    content: str


def inspect(settings: SegmentationData, depth: Depth) -> Iterator[str | Problem | Progress]:
    """Inspect every case.

    Args:
        settings: The data.
        depth: "headers": look at no voxel.

    Yields:
        Progress, then lines that summarise the data, and doubts.

    Raises:
        DataError: Something is wrong with the data; the message lists everything.
    """
    listing = settings.cases()
    store = CaseStore(settings.cache)
    reports: dict[str, CaseReport] = {}
    for case, report in _headers(listing.cases):
        reports[case.name] = report
        yield Progress(len(reports), len(listing.cases), "headers")
    problems = list(listing.problems)
    problems += [f"{name}: {problem}" for name, each in reports.items() for problem in each.problems]
    classes = listing.labels.classes
    subjects = {case.name: case.subject for case in listing.cases}
    division: Mapping[str, Sequence[str]] = {}
    try:
        if listing.cases:
            division = settings.split.divide_listed(subjects, listing.folds)
    except DataError as error:
        problems.append(f"split: {error}")

    used = {name for cases in division.values() for name in cases} or set(reports)
    readable = [case for case in listing.cases if case.name in used and not reports[case.name].problems]
    prepared: dict[str, PreparedCase] = {}
    preprocessing = settings.preprocessing
    if depth == "all":
        try:
            preprocessing = with_intensities(settings, listing, readable, division, store)
        except DataError as error:
            problems.append(str(error))
            readable = []
        outcomes = prepare_each(readable, listing.labels, preprocessing, store, settings.workers)
        for done, (name, outcome) in enumerate(outcomes, start=1):
            yield Progress(done, len(readable), "cases read")
            if isinstance(outcome, DataError):
                problems.append(f"{name}: {outcome}")
            else:
                prepared[name] = outcome
    seen = {name: _voxels(listing, prepared[name], store) for name in sorted(prepared)}
    present = {name: each.of_class for name, each in seen.items()}
    annotated = annotated_classes(listing, settings.annotated)
    if annotated is not None:
        problems += contradictions(annotated, present)
    if seen and len(seen) == len(used) and (absent := problem_of_absent(classes, present, settings.may_be_absent)):
        problems.append(absent)
    if problems:
        where = f" in {_cases(len(reports))}" if reports else ""
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}{where}"
        raise DataError("\n  ".join([f"{listing.source}: {count}", *listing.notes, *problems, *listing.doubts]))

    yield f"{listing.source}: {_cases(len(reports))}, channels {', '.join(listing.channels)}"
    yield from listing.notes
    if seen:
        division = settings.split.balance(division, subjects, present)
    yield "split: " + ", ".join(f"{len(cases)} {split}" for split, cases in division.items())
    if len(used) < len(reports):
        yield f"{_cases(len(reports) - len(used))} in no split: {some_of(sorted(set(reports) - used))}"
    yield from _classes(listing, reports, seen)
    opened = {name: open_case(store.path(each.key)) for name, each in prepared.items()}
    absent = note_on_absent(classes, present) if seen else None
    yield from (line for line in (absent, ignored_in_words(listing.labels, opened), rounded_in_words(opened)) if line)
    yield from _geometry(reports)
    yield from _by_case({name: each.notes for name, each in reports.items()})
    yield from _needs(settings, listing, reports, division, store)
    if depth == "headers":
        yield "not looked at: the voxels, that is label values, NaN, constant images, damage. check --data looks at all"
    if too_large := settings.doubt_about_batches(len(division["train"])):
        yield Problem(too_large, "batch_size", "warning")
    shapes = [grid.shape for each in reports.values() if (grid := grid_of(settings, each))]
    if of_planes := settings.doubt_about_planes(shapes):
        yield Problem(of_planes, "patch_size", "warning")
    doubts = [
        *listing.doubts,
        *doubts_about_subjects(division, subjects),
        *_by_case({name: each.doubts for name, each in reports.items()}),
        *_doubts_of_voxels(listing, seen),
        *doubts_about_ignored(settings, opened),
        *(doubts_about_classes(classes, division, present) if seen else ()),
        *([mended] if (mended := mended_in_words(prepared, store)) else []),
    ]
    yield from (Problem(doubt, severity="warning") for doubt in doubts)
    of_sources = doubts_about_sources(classes, settings.annotated, annotated, present)
    yield from (Problem(doubt, "annotated", "warning") for doubt in of_sources)
    yield from _mixed_sides(settings, listing, reports)


def _headers(cases: Sequence[Case]) -> Iterator[tuple[Case, CaseReport]]:
    pool = ThreadPoolExecutor(min(_MOST_THREADS, usable_cpus()))
    try:
        yield from zip(cases, pool.map(lambda case: case.inspect(), cases), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _voxels(listing: CaseList, prepared: PreparedCase, store: CaseStore) -> Voxels:
    case = open_case(store.path(prepared.key))
    return Voxels(dict(zip(listing.labels.classes, case.own_voxels, strict=True)), case.ranges, prepared.content)


def _classes(listing: CaseList, reports: Mapping[str, CaseReport], seen: Mapping[str, Voxels]) -> Iterator[str]:
    kind = "which exclude each other" if listing.labels.exclusive else "which may overlap"
    yield f"{len(listing.labels.classes)} class{'es' * (len(listing.labels.classes) > 1)}, {kind}:"
    total = sum(int(np.prod(reports[name].shape or ())) for name in seen)
    for k in listing.labels.classes:
        if seen:
            cases = sum(bool(each.of_class[k]) for each in seen.values())
            share = sum(each.of_class[k] for each in seen.values()) / total
            yield f"  {k}: in {cases} of {len(seen)} cases, {share:.3%} of all voxels"
        else:
            yield f"  {k}"


def _geometry(reports: Mapping[str, CaseReport]) -> Iterator[str]:
    affines = [each.affine for each in reports.values() if each.affine is not None]
    yield "size: " + _range([each.shape for each in reports.values() if each.shape], "voxels")
    yield "spacing: " + _range([tuple(spacing_of(affine)) for affine in affines], "mm")
    codes = [axes_of(affine) for affine in affines]
    yield "orientation: " + ", ".join(f"{code} ({codes.count(code)})" for code in sorted(set(codes)))


def _needs(
    settings: SegmentationData,
    listing: CaseList,
    reports: Mapping[str, CaseReport],
    division: Mapping[str, Sequence[str]],
    store: CaseStore,
) -> Iterator[str]:
    channels, classes = len(listing.channels), len(listing.labels.classes)
    targets = 1 if listing.labels.exclusive else classes
    shapes = {name: grid.shape for name, each in reports.items() if (grid := grid_of(settings, each))}
    most = "up to " if settings.preprocessing.crop_to_nonzero else ""
    if settings.preprocessing.spacing_mm or settings.preprocessing.orientation:
        yield f"preprocessed: {most}{_range(list(shapes.values()), 'voxels')}"
    if small := [name for name, shape in shapes.items() if any(np.less(shape, settings.patch_size))]:
        patch = "×".join(map(str, settings.patch_size))
        yield f"smaller than a patch of {patch}, and so padded: {_cases(len(small))}, {some_of(small)}"
    used = {name for cases in division.values() for name in cases}
    bytes_a_voxel = channels * (2 if settings.preprocessing.normalization != "none" else 4) + 1
    cache = sum(
        float(np.prod(shapes[name])) * bytes_a_voxel + float(np.prod(reports[name].shape or ())) for name in used
    )
    limit = "" if settings.cache.limit_gb is None else f" of at most {settings.cache.limit_gb:g} GB"
    room = shutil.disk_usage(_existing(store.folder)).free
    yield (
        f"cache: {most}{cache / 1e9:.3g} GB for these cases in {store.folder}, with {store.size() / 1e9:.3g} GB now"
        f"{limit}; {room / 1e9:.3g} GB are free there"
    )
    voxels = float(np.prod(settings.patch_size)) * settings.batch_size
    batch = voxels * (4 * channels + (8 if listing.labels.exclusive else 4 * targets))
    yield (
        f"memory for batches: {bytes_in_words(batch)} each, {bytes_in_words((2 * settings.workers + 1) * batch)} with "
        "those that are prepared ahead"
    )


def _by_case(sentences: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield each sentence once, with all cases that it is about."""
    names: dict[str, list[str]] = {}
    for name, of_case in sentences.items():
        for sentence in of_case:
            names.setdefault(sentence, []).append(name)
    for sentence, of in names.items():
        yield f"{some_of(of)}: {sentence}"


def _doubts_of_voxels(listing: CaseList, seen: Mapping[str, Voxels]) -> Iterator[str]:
    if empty := [name for name, each in seen.items() if not any(each.of_class.values())]:
        yield f"{len(empty)} of {len(seen)} cases have no class at all: {some_of(empty)}"
    for number, channel in enumerate(listing.channels):
        values = {name: each.ranges[number][0] for name, each in seen.items() if len(set(each.ranges[number])) == 1}
        if values:
            some = some_of([f"{name} ({value:g})" for name, value in values.items()])
            yield f"all voxels of the channel {channel} have one value in {_cases(len(values))}: {some}"
    alike: dict[str, list[str]] = {}
    for name, each in seen.items():
        alike.setdefault(each.content, []).append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f"{some_of(names)} have the same content: the same files under several names"


def _mixed_sides(settings: SegmentationData, listing: CaseList, reports: Mapping[str, CaseReport]) -> Iterator[Problem]:
    flip = settings.augmentation.flip
    affines = [each.affine for each in reports.values() if each.affine is not None]
    axes = left_right_axes(affines, settings.preprocessing.orientation)
    if flip is not None and (doubt := flip.mixed_sides(listing.labels.classes, axes)):
        yield Problem(doubt, "augmentation.flip.axes", "warning")


def grid_of(settings: SegmentationData, report: CaseReport) -> Grid | None:
    """Return the grid of a case after preprocessing; None if its header could not be read.

    Where the preprocessing crops, nearly nothing is cropped: how much it will be, the voxels alone tell.
    """
    if report.shape is None or report.affine is None:
        return None
    preprocessing = settings.preprocessing
    axes, flipped = orientation_of(report.affine, preprocessing.orientation)
    spacing = spacing_of(report.affine)
    shape = [report.shape[axis] for axis in axes]
    box = tuple((0, max(1, n - preprocessing.crop_to_nonzero)) for n in shape)
    if preprocessing.spacing_mm is not None:
        wanted = preprocessing.spacing_mm
        shape = [max(1, round(n * spacing[axis] / mm)) for n, axis, mm in zip(shape, axes, wanted, strict=True)]
    return Grid(report.shape, report.affine, axes, flipped, box, (shape[0], shape[1], shape[2]))


def _range(values: Sequence[Sequence[float]], unit: str) -> str:
    low, middle, high = (
        "×".join(f"{value:.4g}" for value in statistic(np.array(values, dtype=float), axis=0))
        for statistic in (np.min, np.median, np.max)
    )
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}, median {middle}"


def _cases(number: int) -> str:
    return f"{number} case{'s' * (number != 1)}"


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
