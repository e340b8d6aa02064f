"""Finds out what the values in files of masks mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs

from trainkit import Data, DataError, RecipeError
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.cases.missing_masks import MissingMasks
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.msd_live import DATASET_JSON, labels_in
from trainkit_segmentation.evaluation.class_table import read_class_table
from trainkit_segmentation.spelling import IGNORE


@attrs.frozen
class Meaning:
    """What the values in files of masks mean.

    Attributes:
        values: Class -> its label values; none where classes have masks of their own.
        ignored: Values of the truth whose voxels do not count.
        declared: All values that a file may have; None: others count as background.
        source: What says so, for people.
        file_spacing_mm: Size of a voxel in files that do not say it; None: nothing is known.
        masks: Class -> the masks of the truth that it is made of; not there: one mask of its name.
        ignored_masks: Masks of the truth whose voxels do not count.
        channels: The values or masks of a file in which each channel is a mask, in order, without the background.
        overlap: Whether there may be such a file without a channel of the background.
        missing_masks: What it means if the truth has no file for a mask.
        annotated: Pattern of case names -> the classes that were annotated in these cases; in others, all were.
    """

    values: Mapping[str, tuple[int, ...]]
    ignored: tuple[int, ...]
    declared: frozenset[int] | None
    source: str
    file_spacing_mm: tuple[float, float, float] | None = None
    masks: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    ignored_masks: tuple[str, ...] = ()
    channels: tuple[int | str, ...] = ()
    overlap: bool = False
    missing_masks: MissingMasks = "error"
    annotated: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    @property
    def names_of_files(self) -> tuple[str, ...]:
        """The names that files of single masks may have."""
        of_classes = (name for names in self.masks.values() for name in names)
        return tuple(dict.fromkeys((*self.classes, *of_classes, *self.ignored_masks)))

    def was_annotated(self, case: str, name: str) -> bool:
        """Return whether a class was annotated in a case, as far as the name of the case tells."""
        return all(name in of for pattern, of in self.annotated.items() if fnmatchcase(case, pattern))

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
        return _of_table(read_class_table(table))
    if facts is not None:
        return _of_facts(SegmentationFacts.from_json(facts))
    if data is not None:
        if not isinstance(data, SegmentationData):
            raise RecipeError(f"{type(data).__name__} has no masks that could be compared")
        listing = data.cases()
        return attrs.evolve(
            _of_labels(listing.labels, "the recipe's data"),
            file_spacing_mm=data.file_spacing_mm,
            missing_masks=listing.missing_masks,
            annotated=data.annotated or {},
        )
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


def _of_table(table: Mapping[str, tuple[int | str, ...]]) -> Meaning:
    values = {name: tuple(each for each in of if isinstance(each, int)) for name, of in table.items()}
    masks = {name: names for name, of in table.items() if (names := tuple(e for e in of if isinstance(e, str)))}
    ignored, ignored_masks = values.pop(IGNORE, ()), masks.pop(IGNORE, ())
    return Meaning(values, ignored, None, "--classes", masks=masks, ignored_masks=ignored_masks)


def _of_facts(facts: SegmentationFacts) -> Meaning:
    values = {name: tuple(value for value, of in facts.label_values.items() if name in of) for name in facts.classes}
    declared = frozenset({0, *facts.label_values, *facts.ignored_values})
    masks = {name: tuple(mask for mask, of in facts.masks.items() if name in of) for name in facts.classes}
    return Meaning(
        values,
        facts.ignored_values,
        declared,
        "the checkpoint",
        facts.file_spacing_mm,
        masks=masks if facts.masks else {},
        ignored_masks=tuple(mask for mask, of in facts.masks.items() if IGNORE in of),
        channels=tuple(sorted(declared - {0})) if facts.label_values else tuple(facts.masks) or facts.classes,
        overlap=facts.exclusive or not facts.label_values,
        missing_masks=facts.missing_masks,
        annotated=facts.annotated,
    )


def _of_labels(labels: Labels, source: str) -> Meaning:
    if not labels.classes:
        raise DataError(f"{source} names no class")
    of_classes = {name: labels.values_of(name) for name in labels.classes}
    if labels.masks:
        return Meaning(
            dict.fromkeys(labels.classes, ()),
            (),
            frozenset({0}),
            source,
            masks={name: tuple(labels.masks[value] for value in of) for name, of in of_classes.items()},
            ignored_masks=tuple(labels.masks[value] for value in labels.ignored),
            channels=tuple(labels.masks.values()),
            overlap=True,
        )
    declared = frozenset({0, *labels.members, *labels.ignored})
    channels = tuple(sorted(declared - {0}))
    return Meaning(of_classes, labels.ignored, declared, source, channels=channels, overlap=labels.exclusive)
