"""Label values of files that name their segments, as 3D Slicer does: values are numbered anew in each file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainkit import DataError, did_you_mean, some_of
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files.header import Array
from trainkit_segmentation.spelling import IGNORE, composed


def declared_values(path: Path, values_XYZ: Array, names: Mapping[int, str], labels: Labels) -> Array:
    """Return label values as the data set declares them, by the names of the segments.

    Where no segment has the name of a class, the values of the file are taken.

    Args:
        path: The file, for messages.
        values_XYZ: The file's values.
        names: Value in the file -> name of the segment.
        labels: What the values of the data set mean.

    Raises:
        DataError: Some segments have the names of classes, and another one has not.
    """
    value_of = {
        _key(labels.classes[classes[0]]): value for value, classes in labels.members.items() if len(classes) == 1
    }
    if labels.ignored:
        value_of[IGNORE] = labels.ignored[0]
    known = {value: value_of[_key(name)] for value, name in names.items() if _key(name) in value_of}
    if not known or (all(value == declared for value, declared in known.items()) and len(known) == len(names)):
        return values_XYZ
    present = {int(value) for value in np.unique(values_XYZ)} - {0}
    if others := [names.get(value, f"value {value}") for value in sorted(present - set(known))]:
        raise DataError(
            f"{path}: no class has the name of the segment {some_of(others)}; {did_you_mean(others[0], labels.classes)}"
        )
    found = np.zeros(values_XYZ.shape, dtype=np.int64)
    for value, declared in known.items():
        found[values_XYZ == value] = declared
    return found


def _key(name: str) -> str:
    return composed(name).strip().casefold()
