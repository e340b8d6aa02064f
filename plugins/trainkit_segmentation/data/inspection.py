"""What ``check --data`` reports about cases: everything that is wrong, or else a summary."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainkit import DataError, Problem
from trainkit_segmentation.cases.case import CaseList, CaseReport
from trainkit_segmentation.files.nifti import Array
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.grid import axes_of, orientation_of

if TYPE_CHECKING:
    from trainkit_segmentation.data.kind import SegmentationData

_NAMED = 8  # most cases that a warning names


def inspect(settings: SegmentationData) -> list[str | Problem]:
    """Inspect every case.

    Returns:
        Lines that summarise the data, and doubts.

    Raises:
        DataError: Something is wrong with the data; the message lists everything.
    """
    listing = settings.find()
    store = CaseStore(settings.cache)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda case: case.inspect(listing.labels, store.files), listing.cases))
    reports = {case.name: each for case, each in zip(listing.cases, found, strict=True)}

    problems = list(listing.problems)
    problems += [f"{name}: {problem}" for name, each in reports.items() for problem in each.problems]
    division: Mapping[str, Sequence[str]] = {}
    try:
        if listing.cases:
            division = settings.split.divide({case.name: case.subject for case in listing.cases})
    except DataError as error:
        problems.append(f"split: {error}")
    for k in listing.labels.classes if listing.cases else ():
        if not any(each.voxels.get(k) for each in reports.values()):
            problems.append(f'class "{k}" is in no case: the data lacks it, or the meaning of label values is wrong')
    if problems:
        where = f" in {_cases(len(reports))}" if reports else ""
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}{where}"
        raise DataError("\n  ".join([f"{listing.source}: {count}", *listing.notes, *problems, *listing.doubts]))
    return [
        f"{listing.source}: {_cases(len(reports))}, channels {', '.join(listing.channels)}",
        *listing.notes,
        "split: " + ", ".join(f"{len(cases)} {split}" for split, cases in division.items()),
        *_classes(listing, reports),
        *_geometry(reports),
        *_needs(settings, listing, reports, division, store),
        *(Problem(doubt, severity="warning") for doubt in listing.doubts),
        *(Problem(doubt, severity="warning") for doubt in _doubts(settings, listing, reports, division)),
    ]


def _classes(listing: CaseList, reports: Mapping[str, CaseReport]) -> Iterator[str]:
    kind = "which exclude each other" if listing.labels.exclusive else "which may overlap"
    yield f"{len(listing.labels.classes)} class{'es' * (len(listing.labels.classes) > 1)}, {kind}:"
    total = sum(int(np.prod(each.shape)) for each in reports.values() if each.shape)
    for name in listing.labels.classes:
        cases = sum(bool(each.voxels[name]) for each in reports.values())
        share = sum(each.voxels[name] for each in reports.values()) / total
        yield f"  {name}: in {cases} of {len(reports)} cases, {share:.3%} of all voxels"


def _geometry(reports: Mapping[str, CaseReport]) -> Iterator[str]:
    affines = [each.affine for each in reports.values() if each.affine is not None]
    yield "size: " + _range([each.shape for each in reports.values() if each.shape], "voxels")
    yield "spacing: " + _range([tuple(_spacing(affine)) for affine in affines], "mm")
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
    shapes = {name: shape for name, each in reports.items() if (shape := prepared_shape(settings, each))}
    most = "up to " if settings.preprocessing.crop_to_nonzero else ""
    if settings.preprocessing.spacing_mm or settings.preprocessing.orientation:
        yield f"preprocessed: {most}{_range(list(shapes.values()), 'voxels')}"
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
    largest = max((float(np.prod(shapes[name])) for name in division.get("val", ())), default=0.0)
    volume = largest * (4 * channels + (8 if listing.labels.exclusive else 4 * targets))
    yield (
        f"memory: {batch / 1e6:.3g} MB for a batch ({(2 * settings.workers + 1) * batch / 1e6:.3g} MB with those "
        f"prepared ahead), {volume / 1e6:.3g} MB for the largest validation volume; the network's own comes on top"
    )


def _doubts(
    settings: SegmentationData,
    listing: CaseList,
    reports: Mapping[str, CaseReport],
    division: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    if empty := [name for name, each in reports.items() if not any(each.voxels.values())]:
        yield f"{len(empty)} of {len(reports)} cases have no class at all: {_some(empty)}"
    for split, cases in division.items():
        if absent := [k for k in listing.labels.classes if not any(reports[name].voxels[k] for name in cases)]:
            yield f'no case of the split "{split}" has {_some(absent)}'
    shapes = {name: shape for name, each in reports.items() if (shape := prepared_shape(settings, each))}
    small = [name for name, shape in shapes.items() if any(np.less(shape, settings.patch_size))]
    if small:
        size = "×".join(map(str, settings.patch_size))
        yield f"smaller than a patch of {size}, and so padded: {_cases(len(small))}, {_some(small)}"


def prepared_shape(settings: SegmentationData, report: CaseReport) -> tuple[int, ...] | None:
    """Return the voxels of a case after preprocessing but without cropping; None if its header could not be read."""
    if report.shape is None or report.affine is None:
        return None
    axes, _ = orientation_of(report.affine, settings.preprocessing.orientation)
    spacing = _spacing(report.affine)
    shape = [report.shape[axis] for axis in axes]
    if settings.preprocessing.spacing_mm is None:
        return tuple(shape)
    wanted = settings.preprocessing.spacing_mm
    return tuple(max(1, round(n * spacing[axis] / mm)) for n, axis, mm in zip(shape, axes, wanted, strict=True))


def _spacing(affine: Array) -> list[float]:
    return [float(mm) for mm in np.sqrt((affine[:3, :3] ** 2).sum(axis=0))]


def _range(values: Sequence[Sequence[float]], unit: str) -> str:
    low, middle, high = (
        "×".join(f"{value:.4g}" for value in statistic(np.array(values, dtype=float), axis=0))
        for statistic in (np.min, np.median, np.max)
    )
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}, median {middle}"


def _cases(number: int) -> str:
    return f"{number} case{'s' * (number != 1)}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
