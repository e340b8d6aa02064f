"""Looks at every case before anything is made of it: its grid, where it is not 0, its classes, their intensities.

A normalisation that all cases share needs that, and so does a plan (``trainkit init``). What was seen of a case stays
in the cache.

Shapes: C = channels, M = quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainkit import DataError
from trainkit_segmentation.cases.case import Case, Volume
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.preparing import cache_filling, foreground, grid
from trainkit_segmentation.preparing.cache_filling import code_of_reading, content_digest, digest_of, in_threads
from trainkit_segmentation.preparing.cache_live import CaseStore, read_entry
from trainkit_segmentation.preparing.code_digest import code_digest
from trainkit_segmentation.preparing.foreground import quantiles_of_foreground
from trainkit_segmentation.preparing.grid import Grid, nonzero_box, whole_grid
from trainkit_segmentation.preparing.preprocessing_live import voxels_of_classes


class Fingerprint(NamedTuple):
    """What a case is like.

    Attributes:
        grid: The case's own grid, with the box outside of which all channels are 0.
        own_voxels: For each class, its number of voxels.
        quantiles_CM: Quantiles of the intensities of the classes, for each channel.
    """

    grid: Grid
    own_voxels: tuple[int, ...]
    quantiles_CM: Array


def look_at_each(
    cases: Sequence[Case], labels: Labels, nan_as_zero: bool, store: CaseStore, workers: int = 0
) -> Iterator[tuple[str, Fingerprint | DataError]]:
    """Look at cases, several at once, and yield the name of each with what was seen, or with why it cannot be read.

    Args:
        cases: The cases.
        labels: What their labels mean.
        nan_as_zero: Whether voxels that are NaN are taken as 0.
        store: The cache.
        workers: How many cases are looked at at once, if more than a few.
    """
    code = [code_of_reading(), _code()]  # before there are threads: two that parse at once confuse Python 3.11

    def one(case: Case) -> Fingerprint:
        def make() -> tuple[Mapping[str, Array], Mapping[str, Any]]:
            return _seen(case.read(labels, nan_as_zero=nan_as_zero), len(labels.classes))

        key = digest_of(
            {
                "code": code,
                "content": content_digest(case, store),
                "nan_as_zero": nan_as_zero,
                "labels": [len(labels.classes), labels.exclusive, sorted(labels.members.items())],
                "ignored": sorted(labels.ignored),
            }
        )
        store.use([key])
        store.ensure(key, make)
        tensors, about = read_entry(store.path(key), verify=False)
        return Fingerprint(Grid.from_json(about["grid"]), tuple(about["own_voxels"]), tensors["quantiles"].numpy())

    return in_threads(cases, one, store, workers)


def look_at_all(
    cases: Sequence[Case], labels: Labels, nan_as_zero: bool, store: CaseStore, workers: int = 0
) -> dict[str, Fingerprint]:
    """Return name -> what was seen of each case.

    Raises:
        DataError: Some cases cannot be read; the message names all of them.
    """
    found: dict[str, Fingerprint] = {}
    problems: dict[str, str] = {}
    for name, outcome in look_at_each(cases, labels, nan_as_zero, store, workers):
        if isinstance(outcome, DataError):
            problems[name] = str(outcome)
        else:
            found[name] = outcome
    if problems:
        raise cache_filling.unusable(problems, len(cases))
    return {case.name: found[case.name] for case in cases}


def _seen(volume: Volume, num_classes: int) -> tuple[dict[str, Array], dict[str, Any]]:
    own = whole_grid(volume.label_codes_XYZ.shape, volume.affine, None)
    box = nonzero_box(volume.image_CXYZ) or own.box
    about = {
        "grid": Grid(own.own_shape, own.affine, own.axes, own.flipped, box, own.shape).to_json(),
        "own_voxels": voxels_of_classes(volume, num_classes),
    }
    return {"quantiles": np.ascontiguousarray(quantiles_of_foreground(volume, num_classes))}, about


@cache
def _code() -> str:
    modules = (foreground, grid)
    return code_digest(*(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules))
