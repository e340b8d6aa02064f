"""Names of cases, taken from the paths of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import attrs

from trainkit_segmentation.spelling import composed, stem_of


@attrs.frozen
class CaseNames:
    """Names of the cases of a list.

    Attributes:
        names: Name of each case.
        subjects: For each case, the person that it is of.
        note: A sentence about where the names come from, unless they are the names of the label files.
    """

    names: tuple[str, ...]
    subjects: tuple[str, ...]
    note: str | None = None


def name_cases(labels: Sequence[Path]) -> CaseNames:
    """Name cases by the shortest part of their labels' paths that tells them apart.

    That is the file's name without its ending, or the name of a folder where the file is called alike in each, or else
    all parts of the path that differ. In the last case, files of one folder are taken to be of one person, unless the
    folders are fewer than the names of files.

    Args:
        labels: Path of each label without its ending.

    Example:
        >>> name_cases([Path("anna/label"), Path("bela/label")]).names
        ('anna', 'bela')
    """
    parts = [tuple(composed(each) for each in path.parts) for path in labels]
    files = tuple(each[-1] for each in parts)
    if len(set(files)) == len(files):
        return CaseNames(files, files)
    for up in range(2, min(map(len, parts)) + 1):
        folders = tuple(each[-up] for each in parts)
        if len(set(folders)) == len(folders):
            return CaseNames(folders, folders, "cases are named by their folders, because their files are called alike")
    shared = 0
    while len({each[shared] for each in parts}) == 1 and all(len(each) > shared + 1 for each in parts):
        shared += 1
    names = tuple("/".join(each[shared:]) for each in parts)
    note = "cases are named by folder and file, because files of several folders are called alike"
    first = tuple(each[shared] for each in parts)
    if len(set(first)) >= len(set(files)):
        return CaseNames(names, first, f"{note}; cases in one folder are taken to be of one person")
    return CaseNames(names, names, note)


def by_shared_names(cases: Sequence[Sequence[Path]]) -> CaseNames | None:
    """Name cases by what the names of all their files begin with; None, if that does not tell them apart.

    Args:
        cases: The files of each case.

    Example:
        >>> files = [[Path(f"{name}_{what}.nii.gz") for what in ("t1", "t2", "seg")] for name in ("p00", "p01")]
        >>> by_shared_names(files).names
        ('p00', 'p01')
    """
    names = tuple(_beginning([composed(stem_of(file.name)) for file in files]).rstrip("_-. ") for files in cases)
    return CaseNames(names, names) if all(names) and len(set(names)) == len(names) else None


def _beginning(names: Sequence[str]) -> str:
    """Return what all names begin with."""
    first, last = min(names), max(names)
    same = (one == other for one, other in zip(first, last, strict=False))
    return first[: sum(takewhile(bool, same))]
