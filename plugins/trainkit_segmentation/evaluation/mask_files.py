"""Finds the files of masks in a folder, however they are laid out, and pairs those of two folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from trainkit import DataError, some_of
from trainkit_segmentation.data.msd_live import DATASET_JSON
from trainkit_segmentation.files.images import readable_endings
from trainkit_segmentation.prediction.results import ADDED
from trainkit_segmentation.spelling import composed, safe_name, spelled_alike, stem_of

_SEGMENTATION = re.compile(r"[-_]seg$", re.IGNORECASE)
_MASKS = "segmentations"


@attrs.frozen
class MaskFiles:
    """The files of the masks of one case.

    Attributes:
        name: Name of the case.
        label: The file with the values of all classes; None: each class has a file of its own.
        masks: Class -> its file.
    """

    name: str
    label: Path | None = None
    masks: Mapping[str, Path] = attrs.Factory(dict)


@attrs.frozen
class Pairs:
    """What there is to compare.

    Attributes:
        both: The masks of each case: prediction and truth.
        missing: Names of cases that were not predicted.
        extra: Names of predictions for which there is no truth.
        alike: Missing name -> the names of predictions that differ from it in their spelling only.
    """

    both: tuple[tuple[MaskFiles, MaskFiles], ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    alike: Mapping[str, str]


def pair(predictions: Path, truth: Path, classes: Sequence[str]) -> Pairs:
    """Find the masks of predictions and of the truth that belong to the same case.

    Args:
        predictions: A folder, or a single file.
        truth: A folder, or a single file.
        classes: Names of the classes, after which files of single masks are named.

    Raises:
        DataError: One of them does not exist or holds no masks, both are the same, or no case is in both.
    """
    labels = _labels_of(truth)
    if predictions.exists() and labels.exists() and predictions.samefile(labels):
        raise DataError(f"{predictions} and {labels} are the same: each prediction would be compared with itself")
    if predictions.is_file() and truth.is_file():
        name = stem_of(truth.name)
        return Pairs(((MaskFiles(name, predictions), MaskFiles(name, truth)),), (), (), {})
    found, true = find_masks(predictions, classes), find_masks(labels, classes)
    missing, extra = (tuple(sorted(one.keys() - other.keys())) for one, other in ((true, found), (found, true)))
    both = tuple((found[name], true[name]) for name in sorted(found.keys() & true.keys()))
    if not both:
        raise DataError(
            f"no case of {truth} ({some_of(missing, 3)}) is among the predictions in {predictions} "
            f"({some_of(extra, 3)}): cases are paired by the names of their files"
        )
    alike = {name: near[0] for name in missing if (near := spelled_alike(name, extra))}
    return Pairs(both, missing, extra, alike)


def find_masks(path: Path, classes: Sequence[str]) -> dict[str, MaskFiles]:
    """Return name of a case -> its masks.

    Args:
        path: A folder, or a single file.
        classes: Names of the classes.

    Raises:
        DataError: There are none, or two cases have one name.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_file():
        return {_case_of(path): MaskFiles(_case_of(path), path)}
    found: dict[str, MaskFiles] = {}
    for each in _in_folder(path, classes):
        if each.name in found:
            raise DataError(f"{path}: two files or folders belong to the case {each.name}")
        found[each.name] = each
    if not found:
        raise DataError(
            f"{path}: there are no masks: files that end in {', '.join(readable_endings())}, or folders of such files"
        )
    return found


def _labels_of(truth: Path) -> Path:
    """Return the folder of the labels if a folder is a data set with images beside them; else the folder itself."""
    for images, labels in (("imagesTr", "labelsTr"), ("images", "labels")):
        if (truth / labels).is_dir() and ((truth / images).is_dir() or (truth / DATASET_JSON).is_file()):
            return truth / labels
    return truth


def _in_folder(folder: Path, classes: Sequence[str]) -> Iterator[MaskFiles]:
    entries = [each for each in sorted(folder.iterdir()) if not each.name.startswith(".")]
    names = {_case_of(each) for each in entries if each.is_dir() or _is_image(each)}
    for each in entries:
        if each.is_dir():
            if (masks := _case_folder(each, classes)) is not None:
                yield masks
        elif _is_image(each):
            name = _case_of(each)
            if not any(name.endswith(f"_{what}") and name.removesuffix(f"_{what}") in names for what in ADDED):
                yield MaskFiles(name, each)


def _case_of(path: Path) -> str:
    """Return the name of the case that a folder or a label file belongs to."""
    return composed(path.name if path.is_dir() else _SEGMENTATION.sub("", stem_of(path.name)))


def _case_folder(folder: Path, classes: Sequence[str]) -> MaskFiles | None:
    """Return the masks in the folder of a case; None: it holds none."""
    name = _case_of(folder)
    files = [each for each in sorted(folder.iterdir()) if _is_image(each)]
    labels = [each for each in files if _SEGMENTATION.search(stem_of(each.name))]
    if len(labels) == 1:
        return MaskFiles(name, labels[0])
    if (folder / _MASKS).is_dir():
        files = [each for each in sorted((folder / _MASKS).iterdir()) if _is_image(each)]
    by_stem = {composed(stem_of(each.name)): each for each in files}
    masks = {each: by_stem[stem] for each in classes for stem in (each, safe_name(each)) if stem in by_stem}
    return MaskFiles(name, masks=masks) if masks else None


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(readable_endings()) and not path.name.startswith(".") and path.is_file()
