"""Finds out what the values in files of masks mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from trainkit import Data, DataError, RecipeError
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.msd_live import DATASET_JSON, labels_in
from trainkit_segmentation.evaluation.class_table import read_class_table
from trainkit_segmentation.spelling import IGNORE


@attrs.frozen
class Meaning:
    """What the values in files of masks mean.

    Attributes:
        values: Class -> its label values; none where each class has a mask file of its own.
        ignored: Values of the truth whose voxels do not count.
        declared: All values that a file may have; None: others count as background.
        source: What says so, for people.
        file_spacing_mm: Size of a voxel in files that do not say it; None: nothing is known.
    """

    values: Mapping[str, tuple[int, ...]]
    ignored: tuple[int, ...]
    declared: frozenset[int] | None
    source: str
    file_spacing_mm: tuple[float, float, float] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.values)


def meaning_of_values(table: str | None, data: Data | None, facts: Mapping[str, Any] | None, truth: Path) -> Meaning:
    """Return what label values mean.

    Args:
        table: Classes and values as text, see `read_class_table`.
        data: The data of a recipe.
        facts: What a checkpoint says of its training data.
        truth: The folder of the truth, or its file.

    Raises:
        RecipeError: Nothing says it.
        DataError: The data, the facts or ``dataset.json`` cannot be read.
    """
    if table is not None:
        values = read_class_table(table)
        return Meaning(values, values.pop(IGNORE, ()), None, "--classes")
    if facts is not None:
        known = SegmentationFacts.from_json(facts)
        values = {
            name: tuple(value for value, of in known.label_values.items() if name in of) for name in known.classes
        }
        declared = frozenset({0, *known.label_values, *known.ignored_values})
        return Meaning(values, known.ignored_values, declared, "the checkpoint", known.file_spacing_mm)
    if data is not None:
        if not isinstance(data, SegmentationData):
            raise RecipeError(f"{type(data).__name__} has no masks that could be compared")
        meaning = _of_labels(data.cases().labels, "the recipe's data")
        return attrs.evolve(meaning, file_spacing_mm=data.file_spacing_mm)
    for folder in (truth, truth.parent):
        if (folder / DATASET_JSON).is_file():
            return _of_labels(labels_in(folder), str(folder / DATASET_JSON))
    raise RecipeError(
        f"nothing says what the label values mean: there is no {DATASET_JSON} in {truth} or above it; add "
        '--classes "liver=1, tumour=2", --run RUN or --recipe RECIPE'
    )


def refuse_other_values(meaning: Meaning, predictions: Path) -> None:
    """Refuse predictions whose own ``dataset.json``, which nnU-Net writes beside them, gives classes other values.

    Args:
        meaning: What the values of the truth mean.
        predictions: The folder of predictions, or a single file.

    Raises:
        DataError: A class has other values, or the file cannot be read.
    """
    if not (predictions / DATASET_JSON).is_file():
        return
    theirs = _of_labels(labels_in(predictions), str(predictions / DATASET_JSON))
    for name, values in meaning.values.items():
        other = theirs.values.get(name, values)
        if values and set(other) != set(values):
            one, two = ("+".join(map(str, each)) for each in (values, other))
            raise DataError(
                f"{name} has the value {two} in {theirs.source}, but {one} in {meaning.source}: bring predictions and "
                "truth to the same values"
            )


def _of_labels(labels: Labels, source: str) -> Meaning:
    values = {
        name: tuple(value for value, of in labels.members.items() if k in of) for k, name in enumerate(labels.classes)
    }
    if not values:
        raise DataError(f"{source} names no class")
    return Meaning(values, labels.ignored, frozenset({0, *labels.members, *labels.ignored}), source)
